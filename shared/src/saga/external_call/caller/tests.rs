use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use super::*;
use crate::circuit_breaker::{FIRST_OPEN, IN_A_ROW};
use crate::db::DbOptions;
use crate::envelope::{Cause, Direction, Event, Message, Never, new_id};
use crate::fault::Fault;
use crate::saga::participant::Answer;
use crate::unit_of_work::UnitOfWork;

#[derive(Debug, Serialize, Deserialize)]
struct Print {}

impl Message for Print {
    const TYPE: &'static str = "test.print.v1";
    const TOPIC: &'static str = "test.commands";
}

impl Command for Print {
    type Reply = Printed;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
struct Printed {}

impl Message for Printed {
    const TYPE: &'static str = "test.printed.v1";
    const TOPIC: &'static str = "test.events";
}

impl Event for Printed {}

/// Counts its calls, and answers while it is switched on.
#[derive(Default)]
struct Printer {
    on: AtomicBool,
    calls: AtomicUsize,
}

impl ExternalCall<Print> for Printer {
    const TARGET: &'static str = "printer";
    type Outcome = ();

    async fn record_intent(&self, _: &mut UnitOfWork, _: &[Task<Print>]) -> Result<(), Fault> {
        Ok(())
    }

    async fn call(&self, _: &str, _: &Task<Print>) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.on.load(Ordering::Relaxed) { Ok(()) } else { Err("out of paper".into()) }
    }

    async fn record_outcome(
        &self,
        _: &mut UnitOfWork,
        answered: &[(Task<Print>, ())],
    ) -> Result<Vec<Answer<Print>>, Fault> {
        Ok(answered.iter().map(|_| Answer::done(Printed {})).collect())
    }
}

fn open() -> Open<Print> {
    let saga_id = new_id();
    let step = StepKey { saga_id, step: "print".to_owned(), direction: Direction::Do };
    let cause = Cause::request(saga_id, None);
    Open { task: Task { command: Print {}, subject: saga_id.to_string(), cause, step }, is_given_up: false }
}

/// Returns a caller of this printer. The test never uses its database.
fn caller(printer: &Arc<Printer>, dependency: &Arc<Dependency>) -> Caller<Print, Printer> {
    let db = DbOptions::new("test").connect(PgConnectOptions::new_without_pgpass());
    let (_, tasks) = mpsc::channel(1);
    let slots = Arc::new(Semaphore::new(Printer::MAX_CONCURRENCY));
    Caller { db, handler: Arc::clone(printer), dependency: Arc::clone(dependency), tasks, slots }
}

async fn end_all(calls: &mut Calls<Print, ()>) {
    while let Some(ended) = calls.join_next().await {
        ended.expect("the call ends");
    }
}

#[tokio::test]
async fn a_dependency_that_does_not_answer_is_not_called_by_any_who_share_its_circuit() {
    let (printer, dependency) = (Arc::new(Printer::default()), Arc::new(Dependency::new("printer")));
    let (one, other) = (caller(&printer, &dependency), caller(&printer, &dependency));
    let mut calls = Calls::new();
    for _ in 0..IN_A_ROW {
        assert!(one.begin(open(), &mut calls).is_none(), "the circuit is closed");
    }
    end_all(&mut calls).await;
    for caller in [&one, &other] {
        assert_eq!(caller.room(&calls), 0, "nothing is taken up");
        let deferred = caller.begin(open(), &mut calls).expect("the circuit is open");
        assert!(!deferred.wait.is_zero() && deferred.wait <= FIRST_OPEN, "{:?}", deferred.wait);
    }
    assert!(calls.is_empty());
    assert_eq!(printer.calls.load(Ordering::Relaxed), IN_A_ROW as usize);
}

#[tokio::test]
async fn a_dependency_that_answers_is_called_as_often_as_there_are_steps() {
    let (printer, dependency) = (Arc::new(Printer::default()), Arc::new(Dependency::new("printer")));
    printer.on.store(true, Ordering::Relaxed);
    let caller = caller(&printer, &dependency);
    let mut calls = Calls::new();
    for _ in 0..100 {
        assert!(caller.begin(open(), &mut calls).is_none());
    }
    assert_eq!(caller.room(&calls), Printer::MAX_CONCURRENCY - 100);
    end_all(&mut calls).await;
    assert_eq!(printer.calls.load(Ordering::Relaxed), 100);
}

//! Versions of messages: which ones a service understands, and how a previous version is converted.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::{RawValue, to_raw_value};

use crate::envelope::{Envelope, Message};
use crate::fault::Fault;
use crate::incoming::Incoming;

/// The versions that a router understands.
#[derive(Default)]
pub(crate) struct Versions {
    /// The versions of each message name.
    known: HashMap<&'static str, Vec<u32>>,
    upcasts: HashMap<&'static str, Upcast>,
}

/// The conversion of a message of the previous version to the current one.
struct Upcast {
    kind: &'static str,
    data_version: &'static str,
    convert_data: Box<Convert>,
}

/// Makes the data of the current version from a message of the previous one.
type Convert = dyn Fn(&Incoming) -> Result<Box<RawValue>, Fault> + Send + Sync;

impl Versions {
    pub(crate) fn add(&mut self, kind: &'static str) {
        if let Some((name, version)) = split(kind) {
            let versions = self.known.entry(name).or_default();
            versions.push(version);
            versions.sort_unstable();
        }
    }

    pub(crate) fn upcast<Old: Message, New: Message>(&mut self, convert_data: fn(Old) -> New) {
        self.add(Old::TYPE);
        let convert_data = move |message: &Incoming| Ok(to_raw_value(&convert_data(message.data::<Old>()?))?);
        let upcast =
            Upcast { kind: New::TYPE, data_version: New::DATA_VERSION, convert_data: Box::new(convert_data) };
        let previous = self.upcasts.insert(Old::TYPE, upcast);
        assert!(previous.is_none(), "{} is cast up twice", Old::TYPE);
    }

    /// Returns whether any version of this message is understood.
    pub(crate) fn knows(&self, kind: &str) -> bool {
        split(kind).is_some_and(|(name, _)| self.known.contains_key(name))
    }

    /// Returns whether messages of this type are converted to another version.
    pub(crate) fn converts(&self, kind: &str) -> bool {
        self.upcasts.contains_key(kind)
    }

    /// Converts the message to the current version, or refuses it.
    pub(crate) fn convert(&self, message: &mut Incoming) {
        let Some(upcast) = self.upcasts.get(message.kind()) else {
            return message.refuse(self.not_understood(message.kind()));
        };
        if let Err(fault) = upcast.apply(message) {
            message.refuse(fault.chain());
        }
    }

    fn not_understood(&self, kind: &str) -> String {
        let known = split(kind).and_then(|(name, version)| Some((name, version, self.known.get(name)?)));
        let Some((name, version, versions)) = known else {
            return format!("there is no handler for {kind} here");
        };
        let versions: Vec<String> = versions.iter().map(|version| format!("v{version}")).collect();
        let versions = versions.join(" and ");
        format!("version {version} of {name} is not understood here; this release understands {versions}")
    }
}

impl Upcast {
    fn apply(&self, message: &mut Incoming) -> Result<(), Fault> {
        let data = (self.convert_data)(message)?;
        let envelope = Envelope {
            kind: Cow::Borrowed(self.kind),
            data_version: Cow::Borrowed(self.data_version),
            data,
            ..message.envelope()?.clone()
        };
        let body = serde_json::to_vec(&envelope)?;
        message.original = Some(std::mem::replace(&mut message.body, body));
        message.envelope = Some(envelope);
        Ok(())
    }
}

/// Splits a type into name and version: `order.created.v1` is version 1 of `order.created`.
fn split(kind: &str) -> Option<(&str, u32)> {
    let (name, version) = kind.rsplit_once(".v")?;
    Some((name, version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::{Deserialize, Serialize};

    use crate::incoming::Incoming;

    use crate::router::{BatchHandler, MessageRouter};

    use crate::envelope::Message;
    use crate::fault::Fault;
    use crate::unit_of_work::UnitOfWork;
    use futures::future::BoxFuture;

    #[derive(Serialize, Deserialize)]
    struct PricedV2 {
        price: i64,
    }

    impl Message for PricedV2 {
        const TYPE: &'static str = "thing.priced.v2";
        const TOPIC: &'static str = "thing.events";
        const DATA_VERSION: &'static str = "2.0.0";
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct PricedV3 {
        price: i64,
        currency: String,
    }

    impl Message for PricedV3 {
        const TYPE: &'static str = "thing.priced.v3";
        const TOPIC: &'static str = "thing.events";
        const DATA_VERSION: &'static str = "3.0.0";
    }

    struct NoHandler;

    impl BatchHandler for NoHandler {
        fn handle<'a>(
            &'a self,
            _: &'a mut UnitOfWork,
            _: &'a [&'a Incoming],
        ) -> BoxFuture<'a, Result<(), Fault>> {
            Box::pin(async { Ok(()) })
        }
    }

    fn router() -> MessageRouter {
        let router = MessageRouter::new().events(&[(PricedV3::TYPE, PricedV3::TOPIC)], Arc::new(NoHandler));
        router.upcast(|old: PricedV2| PricedV3 { price: old.price, currency: "EUR".to_owned() })
    }

    fn message(topic: &str, kind: &str, data: &str) -> Incoming {
        let body = format!(
            r#"{{"id":"0197e3a0-0000-7000-8000-000000000001","type":"{kind}","source":"thing","subject":"t-1",
            "dataVersion":"2.0.0","timestamp":"2026-11-21T10:00:00Z","sequence":7,
            "correlationId":"0197e3a0-0000-7000-8000-000000000002","data":{data}}}"#
        );
        Incoming::read((topic.to_owned(), 0, 1), "t-1".to_owned(), body.as_bytes(), None)
    }

    #[test]
    fn the_previous_version_is_cast_up_before_a_handler_sees_it() {
        let mut old = message("thing.events", PricedV2::TYPE, r#"{"price":100}"#);
        let original = old.body.clone();
        assert!(router().admit(&mut old));
        assert_eq!((old.kind(), old.refused()), (PricedV3::TYPE, None));
        let envelope = old.envelope().expect("an envelope");
        assert_eq!((&*envelope.data_version, envelope.sequence), ("3.0.0", Some(7)));
        let expected = PricedV3 { price: 100, currency: "EUR".to_owned() };
        assert_eq!(old.data::<PricedV3>().expect("the new version"), expected);
        assert_eq!(old.original(), original, "what is parked is what came");
        // External calls read a command from its bytes, so the bytes must be of the new version too.
        let again = Incoming::read(("thing.events".to_owned(), 0, 1), "t-1".to_owned(), &old.body, None);
        assert_eq!(again.data::<PricedV3>().expect("the new version"), expected);
    }

    #[test]
    fn a_previous_version_whose_data_is_wrong_is_refused_without_quoting_it() {
        let mut old = message("thing.events", PricedV2::TYPE, r#"{"price":"secret"}"#);
        assert!(router().admit(&mut old));
        let reason = old.refused().expect("a reason");
        assert!(
            reason.starts_with("the data is not a thing.priced.v2") && !reason.contains("secret"),
            "{reason}"
        );
    }

    #[test]
    fn another_version_is_refused_on_every_topic_and_another_event_passed_over() {
        for topic in ["thing.events", "thing.commands"] {
            let mut newer = message(topic, "thing.priced.v9", "{}");
            assert!(router().admit(&mut newer), "it must not be passed over unseen");
            assert_eq!(
                newer.refused(),
                Some("version 9 of thing.priced is not understood here; this release understands v2 and v3")
            );
        }
        assert!(!router().admit(&mut message("thing.events", "thing.moved.v1", "{}")));
        assert!(!router().admit(&mut message("thing.events", "thing.priced.vX", "{}")));
        let mut unknown = message("thing.commands", "thing.moved.v1", "{}");
        assert!(router().admit(&mut unknown), "somebody may wait for an answer");
        assert_eq!(unknown.refused(), Some("there is no handler for thing.moved.v1 here"));
    }

    #[test]
    fn nothing_is_skipped_on_a_topic_that_also_has_commands() {
        let router = router().on(&[("thing.move.v1", PricedV3::TOPIC)], Arc::new(NoHandler));
        assert!(router.admit(&mut message("thing.events", "thing.moved.v1", "{}")), "its sender may wait");
    }
}

//! A mail server that a test controls.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use local::free_port;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The credentials of the user `amends`, with the password in [`MailServer::url`].
const CREDENTIALS: &str = "AGFtZW5kcwBzM2NyZXQ=";
pub const PASSWORD: &str = "s3cret";

/// A mail server. It listens on its port until it is dropped.
pub struct MailServer {
    port: u16,
    state: Arc<State>,
    /// The task that accepts connections and holds them. They are closed when it ends.
    up: Option<JoinSet<()>>,
}

/// A received mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub from: String,
    pub to: String,
    /// Headers and body, without the dots that SMTP adds.
    pub content: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let head = self.content.split("\r\n\r\n").next().unwrap_or_default();
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.content))
    }

    /// Returns the text. Lines that quoted-printable has broken are joined.
    pub fn text(&self) -> String {
        let body = self.content.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        body.replace("=\r\n", "").trim_end().to_owned()
    }
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    orders: Mutex<Orders>,
    /// How many clients have connected so far.
    connections: AtomicUsize,
    /// Whether answers to mails are delayed.
    held: watch::Sender<bool>,
}

/// The behaviour that the test has chosen.
#[derive(Default)]
struct Orders {
    refused: HashSet<String>,
    busy: usize,
    broken: usize,
    /// The server refuses every client.
    closed: bool,
}

impl State {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no panic")
    }
}

impl MailServer {
    pub async fn start() -> Self {
        let port = free_port().expect("a free port");
        let mut server = Self { port, state: Arc::default(), up: None };
        server.come_up().await;
        server
    }

    pub fn url(&self) -> String {
        format!("smtp://amends:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// Returns all received mails, including those without an answer.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("no panic").clone()
    }

    /// Returns how many connections were made so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Refuses a mailbox as unknown.
    pub fn refuse(&self, address: &str) {
        self.state.orders().refused.insert(address.to_owned());
    }

    /// Refuses the next mail for the time being.
    pub fn be_busy_once(&self) {
        self.state.orders().busy += 1;
    }

    /// Accepts the next mail, and closes the connection before the answer.
    pub fn break_off_once(&self) {
        self.state.orders().broken += 1;
    }

    /// Refuses every login for good.
    pub fn close(&self, closed: bool) {
        self.state.orders().closed = closed;
    }

    /// Accepts mails without answering, until the returned value is dropped.
    pub fn hold_answers(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    pub fn go_down(&mut self) {
        self.up = None;
    }

    pub async fn come_up(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free");
        let state = Arc::clone(&self.state);
        let mut up = JoinSet::new();
        up.spawn(async move {
            // The tasks end when the set is dropped.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream, Arc::clone(&state)));
            }
        });
        self.up = Some(up);
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let (read, write) = stream.into_split();
    let mut session = Session { lines: BufReader::new(read), write, state };
    // However this ends, the connection is closed: the client has gone, or must see that the server has.
    session.run().await;
}

struct Session {
    lines: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    state: Arc<State>,
}

impl Session {
    /// Reads a line. Returns `None` at the end.
    async fn run(&mut self) -> Option<()> {
        let (mut from, mut to) = (String::new(), String::new());
        let mut known = false;
        let closed = self.state.orders().closed;
        self.say(if closed { "554 no service here" } else { "220 test" }).await?;
        loop {
            let line = self.line().await?;
            let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            let answer = match verb.to_ascii_uppercase().as_str() {
                _ if closed => "503 no service here",
                "EHLO" => "250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN",
                "AUTH" if rest == format!("PLAIN {CREDENTIALS}") => {
                    known = true;
                    "235 welcome"
                }
                "AUTH" => "535 5.7.8 who are you",
                "MAIL" if !known => "530 5.7.0 who are you",
                "MAIL" => {
                    from = address(rest);
                    "250 ok"
                }
                "RCPT" => {
                    to = address(rest);
                    let mut orders = self.state.orders();
                    if orders.refused.contains(&to) {
                        "550 5.1.1 there is no such mailbox"
                    } else if orders.busy > 0 {
                        orders.busy -= 1;
                        "451 4.3.2 come again later"
                    } else {
                        "250 ok"
                    }
                }
                "DATA" => {
                    self.take(&from, &to).await?;
                    "250 taken"
                }
                "NOOP" | "RSET" => "250 ok",
                "QUIT" => {
                    self.say("221 bye").await;
                    return None;
                }
                _ => "502 what",
            };
            self.say(answer).await?;
        }
    }

    /// Receives a mail. Returns `None` if it must not be answered.
    async fn take(&mut self, from: &str, to: &str) -> Option<()> {
        self.say("354 go on").await?;
        let mut content = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            content.push_str(line.strip_prefix('.').unwrap_or(&line));
            content.push_str("\r\n");
        }
        let received = Received { from: from.to_owned(), to: to.to_owned(), content };
        self.state.received.lock().expect("no panic").push(received);
        {
            let mut orders = self.state.orders();
            if orders.broken > 0 {
                orders.broken -= 1;
                return None;
            }
        }
        self.state.held.subscribe().wait_for(|held| !held).await.ok()?;
        Some(())
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn say(&mut self, answer: &str) -> Option<()> {
        self.write.write_all(format!("{answer}\r\n").as_bytes()).await.ok()
    }
}

/// Returns the text between the angle brackets.
fn address(rest: &str) -> String {
    let address = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    address.map(|(address, _)| address.to_owned()).unwrap_or_default()
}

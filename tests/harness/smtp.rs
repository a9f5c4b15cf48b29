//! A mail server that does what a test tells it to.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use local::free_port;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Of `amends` with the password in [`MailServer::url`].
const CREDENTIALS: &str = "AGFtZW5kcwBzM2NyZXQ=";
pub const PASSWORD: &str = "s3cret";

/// Listens on one port for as long as it is up. Dropped, it is down.
pub struct MailServer {
    port: u16,
    state: Arc<State>,
    /// Accepts connections and holds them; gone, they are closed.
    up: Option<JoinSet<()>>,
}

/// A mail that has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub from: String,
    pub to: String,
    /// Headers and body, dots taken out.
    pub content: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let head = self.content.split("\r\n\r\n").next().unwrap_or_default();
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.content))
    }

    /// The text, with the lines that quoted-printable has broken joined again.
    pub fn text(&self) -> String {
        let body = self.content.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        body.replace("=\r\n", "").trim_end().to_owned()
    }
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    orders: Mutex<Orders>,
    /// How many clients have come in so far.
    connections: AtomicUsize,
    /// Whether answers to mails are held back.
    held: watch::Sender<bool>,
}

/// What the test wants.
#[derive(Default)]
struct Orders {
    refused: HashSet<String>,
    busy: usize,
    broken: usize,
    /// Nobody may come in.
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

    /// Everything that was taken, also what was not answered.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("no panic").clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// There is no such mailbox.
    pub fn refuse(&self, address: &str) {
        self.state.orders().refused.insert(address.to_owned());
    }

    /// The next mail is to come again later.
    pub fn be_busy_once(&self) {
        self.state.orders().busy += 1;
    }

    /// The next mail is taken, but the connection breaks before the answer.
    pub fn break_off_once(&self) {
        self.state.orders().broken += 1;
    }

    /// Nobody may come in, and everybody is told so for good.
    pub fn close(&self, closed: bool) {
        self.state.orders().closed = closed;
    }

    /// Mails are taken, but not answered until this ends.
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
            // With the set its tasks end.
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
    // Whatever ends it, the client has gone, or is to believe that the server has.
    session.run().await;
}

struct Session {
    lines: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    state: Arc<State>,
}

impl Session {
    /// `None` at the end.
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

    /// Takes a mail. `None` if it is not to be answered.
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

/// What is between the angle brackets.
fn address(rest: &str) -> String {
    let address = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    address.map(|(address, _)| address.to_owned()).unwrap_or_default()
}

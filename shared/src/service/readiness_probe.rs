//! Asks the running service whether it is ready, from a second process of the same binary. A container's health check
//! therefore needs no other program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The timeout of connecting and of each read and write. `/readyz` itself gives its checks two seconds.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks the service that listens on `address`. Returns its answer as the reason if it is not ready.
///
/// # Errors
/// Fails if no service answers, or if the answer is not HTTP.
pub(super) fn ready(address: SocketAddr) -> io::Result<Result<(), String>> {
    let mut stream = TcpStream::connect_timeout(&reachable(address), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status =
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
    if status == "200" {
        return Ok(Ok(()));
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(Err(format!("{status} {}", body.trim())))
}

/// Returns an address that can be connected to: loopback for a service that listens on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Asks a server that listens on every address and gives this answer.
    fn answered(answer: &'static str) -> io::Result<Result<(), String>> {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut asked = [0; 512];
            let length = stream.read(&mut asked).expect("a request");
            stream.write_all(answer.as_bytes()).expect("sent");
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let result = ready(address);
        assert!(server.join().expect("no panic").starts_with("GET /readyz HTTP/1.1\r\n"));
        result
    }

    #[test]
    fn the_status_says_whether_it_is_ready_and_the_body_why_not() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\n\r\n{}").expect("an answer"), Ok(()));
        let result =
            answered("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}\n").expect("an answer");
        assert_eq!(result, Err("503 {\"ready\":false}".to_owned()));
        assert!(answered("220 mail.example.com\r\n").is_err());
        assert!(answered("").is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        assert!(ready(address).is_err());
    }
}

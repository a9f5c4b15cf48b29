//! Refuses addresses with control characters, which no text needs that people enter. PostgreSQL cannot search for NUL, and the
//! others would get into logs and onto terminals.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

use crate::service::problem::Problem;

pub(super) async fn without_control(request: Request, next: Next) -> Result<Response, Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    check(route, request.uri().path(), request.uri().query().unwrap_or_default())?;
    Ok(next.run(request).await)
}

fn check(route: &str, path: &str, query: &str) -> Result<(), Problem> {
    // A record from Kafka may have a key with any other control character than NUL, and operators must be able to name it.
    let names_record = route.starts_with("/parked/");
    let refused = |c: &char| if names_record { *c == '\0' } else { c.is_control() };
    let found =
        decoded(path).chars().find(refused).or_else(|| decoded(query).chars().find(|c| c.is_control()));
    match found {
        Some(c) => {
            Err(Problem::bad_request(format!("the address has a control character (U+{:04X})", u32::from(c))))
        }
        None => Ok(()),
    }
}

/// Returns a part of an address without its percent-encoding.
fn decoded(part: &str) -> String {
    if part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return String::new();
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, then @ ..] = rest {
        let code = then.get(..2).filter(|code| *first == b'%' && code.iter().all(u8::is_ascii_hexdigit));
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &then[2..] } else { then };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_character_is_refused_however_it_is_written() {
        for part in ["a%00b", "a%0Ab", "%1b%5B2J", "%7F", "%c2%9B", "a\u{9b}", "a\u{7f}"] {
            assert_eq!(
                check("/orders/{id}", part, "").expect_err("a control character").status,
                400,
                "{part}"
            );
            assert!(check("/orders", "/orders", part).is_err(), "{part}");
        }
        for part in ["/orders/7", "a%20b%C3%9F%25", "100%", "%zz%", "ß", "%+1"] {
            assert!(check("/orders/{id}", part, part).is_ok(), "{part}");
        }
    }

    #[test]
    fn the_key_of_a_record_may_be_strange() {
        let check = |path, query| check("/parked/{key}/retry", path, query).is_ok();
        assert!(check("/parked/a%0Ab%1B/retry", ""));
        assert!(!check("/parked/a%0A%00/retry", ""));
        assert!(!check("/parked/a/retry", "by=a%0Ab"));
    }
}

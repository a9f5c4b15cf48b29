//! URLs of PostgreSQL's databases.

use std::path::Path;

/// Returns the URL of `database` for `user`, with the socket in the folder `data` if there is one.
///
/// A socket costs both sides less than TCP. Clients that ignore the parameter `host` connect by TCP.
pub(crate) fn database_url(
    port: u16,
    database: &str,
    user: &str,
    password: Option<&str>,
    data: Option<&Path>,
) -> String {
    let password = password.map(|it| format!(":{}", encode(it))).unwrap_or_default();
    let socket = data.and_then(socket_dir).and_then(Path::to_str);
    let socket = socket.map(|dir| format!("?host={}", encode(dir))).unwrap_or_default();
    format!("postgres://{}{password}@127.0.0.1:{port}/{}{socket}", encode(user), encode(database))
}

/// Returns the superuser's URL of a PostgreSQL that another process runs on the data folder `data`.
pub fn url_beside(data: &Path, port: u16) -> String {
    let data = data.canonicalize().ok();
    // The data folder of a server in a container has no socket.
    let data = data.filter(|data| data.join(format!(".s.PGSQL.{port}")).exists());
    database_url(port, "postgres", "postgres", None, data.as_deref())
}

/// Returns the folder of the server's socket: the data folder, unless its path is too long for a socket's address.
pub(crate) fn socket_dir(data: &Path) -> Option<&Path> {
    const LONGEST: usize = 107 - "/.s.PGSQL.65535".len();
    (data.is_absolute() && data.as_os_str().len() <= LONGEST).then_some(data)
}

/// Percent-encodes every byte that may not stand in a part of a URL.
fn encode(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_and_the_socket_is_given_where_there_is_one() {
        let url = database_url(5432, "a/b", "me@home", Some("p:w"), None);
        assert_eq!(url, "postgres://me%40home:p%3Aw@127.0.0.1:5432/a%2Fb");
        let url = database_url(5432, "app", "me", None, Some(Path::new("/srv/data")));
        assert_eq!(url, "postgres://me@127.0.0.1:5432/app?host=%2Fsrv%2Fdata");
    }

    #[test]
    fn a_path_too_long_for_a_socket_leaves_tcp() {
        let long = format!("/{}", "x".repeat(100));
        assert_eq!(database_url(1, "d", "u", None, Some(Path::new(&long))), "postgres://u@127.0.0.1:1/d");
    }
}

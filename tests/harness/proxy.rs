//! nginx in front of a service.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use local::{Signal, free_port, spawn_bound};

use super::Suite;
use super::servers::folder;

const NGINX: &str = "/usr/sbin/nginx";

/// An nginx. It ends when it is dropped.
pub struct Proxy {
    pub url: String,
    child: Child,
}

impl Proxy {
    /// Starts an nginx that has nothing but `proxy_pass` for the service. Returns `None` if nginx is not installed.
    pub async fn start(suite: &Suite, service: &'static str) -> Option<Self> {
        if !Path::new(NGINX).exists() {
            eprintln!("NOT TESTED: nginx, because the package nginx-light is not installed");
            return None;
        }
        let port = free_port().expect("a free port");
        let folder = folder().join(format!("{}-nginx", suite.name));
        std::fs::create_dir_all(&folder).expect("a folder");
        let at = |name: &str| folder.join(name).display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {};", at(kind))).join(" ");
        let settings = format!(
            "daemon off; master_process off; pid {}; error_log {};\nevents {{}}\nhttp {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {}; }} }} }}\n",
            at("pid"),
            at("error.log"),
            suite.url(service),
        );
        std::fs::write(folder.join("nginx.conf"), settings).expect("a file");
        let mut command = Command::new(NGINX);
        command.args(["-e", &at("error.log"), "-c", &at("nginx.conf")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn_bound(command, Signal::KILL).expect("a process");
        let proxy = Self { url: format!("http://127.0.0.1:{port}"), child };
        suite
            .until("nginx to pass requests on", async |suite| {
                let answer = suite.client.get(format!("{}/healthz", proxy.url)).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        Some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

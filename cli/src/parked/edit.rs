//! `amends parked edit`: replaces the body of a message by one from a file or an editor.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Place, path, text_of, what_now};
use crate::output::say;

/// What to correct.
#[derive(Debug, Args)]
pub struct Edit {
    /// The parked key.
    key: String,
    /// The message's number, as `amends parked show` prints it.
    id: i64,
    /// A file with the corrected envelope as JSON; - reads standard input. Without it an editor opens the present body.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The editor: a command that takes a file name.
    #[arg(long, env = "EDITOR", default_value = "vi")]
    editor: String,
    /// Who edits it. The service keeps the name and the former body.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    #[command(flatten)]
    place: Place,
}

impl Edit {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let api = self.place.api();
        let (service, message) = self.place.holder_of(&api, &self.key, self.id).await?;
        if message["status"] != "parked" {
            bail!(
                "message {} of the key {} is not parked any more: it was {}",
                self.id,
                self.key,
                message["status"]
            );
        }
        let (text, from) = match &self.file {
            Some(file) if file == Path::new("-") => (
                std::io::read_to_string(std::io::stdin()).context("standard input can't be read")?,
                "standard input",
            ),
            Some(file) => {
                let text =
                    fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
                (text, "the file")
            }
            None => (edited(&self.editor, &draft(&message, &self.key))?, "the edited text"),
        };
        let _: IgnoredAny = serde_json::from_str(&text).with_context(|| format!("{from} is not JSON"))?;
        let url = api.url(service, &path(&self.key, &format!("/messages/{}", self.id)));
        let put = |client: &reqwest::Client| client.put(url).query(&[("by", &self.by)]);
        let answer = api
            .request(|client| put(client).header("Content-Type", "application/json").body(text.clone()))
            .await?;
        let answer: Value = answer.json().await?;
        say!("{service}  {}  message {} edited; {}", self.key, self.id, what_now(&answer, &self.key));
        Ok(())
    }
}

/// Formats a body for people.
pub(super) fn readable(message: &Value) -> String {
    let body = text_of(message, "body");
    match serde_json::from_str::<Value>(body) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap_or_else(|_| body.to_owned()),
        Err(_) => body.to_owned(),
    }
}

/// Returns the text that the editor opens: the body, or an envelope to fill in if the body is not text.
fn draft(message: &Value, key: &str) -> String {
    if message["encoding"] == "text" {
        return readable(message);
    }
    let new = || json!(shared::envelope::new_id());
    let id = message["messageId"].as_str().map_or_else(new, |id| json!(id));
    let envelope = json!({
        "id": id, "type": message["type"].as_str().unwrap_or_default(), "source": "operator", "subject": key,
        "dataVersion": "1.0.0", "timestamp": message["parkedAt"], "correlationId": "", "data": {},
    });
    serde_json::to_string_pretty(&envelope).unwrap_or_default()
}

/// Returns the text after the editor has ended.
fn edited(editor: &str, text: &str) -> anyhow::Result<String> {
    let file = std::env::temp_dir().join(format!("amends-{}.json", shared::envelope::new_id().simple()));
    let text = text.trim_end();
    // The body may contain personal data, so no other user may read the file, and it is deleted.
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let mut written = written.with_context(|| format!("can't write {}", file.display()))?;
    let ended = writeln!(written, "{text}").map_err(anyhow::Error::from).and_then(|()| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&file);
        let status = command.status().with_context(|| format!("the editor `{editor}` does not start"))?;
        if !status.success() {
            bail!("the editor `{editor}` ended with {status}; nothing was changed");
        }
        fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))
    });
    let _ = fs::remove_file(&file);
    let after = ended?;
    if after.trim_end() == text {
        bail!("nothing was changed");
    }
    Ok(after)
}

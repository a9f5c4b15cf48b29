//! `amends consumer`: sets the consumed offsets of a service back, for a database that was set back in time.

mod group;

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use shared::service::config::duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::group::{Group, Target};
use crate::audit::Topics;
use crate::output::say;
use crate::suite::{SERVICES, Suite};

/// The commands about consumers, which handle the messages for a service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let a service read its topics again from an earlier time. Stop all its replicas before.
    ///
    /// A message that the database knows has no second effect. So a time that is too early is harmless, and one that is too
    /// late loses messages: those that the backup did not have, although they were written before that time.
    Rewind(Rewind),
}

/// Whose offsets are set back, and how far.
#[derive(Debug, Args)]
pub struct Rewind {
    /// The service whose database was set back.
    #[arg(long, value_parser = SERVICES)]
    service: String,
    #[command(flatten)]
    from: From,
    /// Say how many records would be read again, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait until the group has no members. A replica that was killed stays one for up to ten seconds.
    #[arg(long, default_value = "15s", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    suite: Suite,
    #[command(flatten)]
    topics: Topics,
}

/// The record from which the service reads again.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct From {
    /// The first record that was written at this time or later, for example 2026-11-28T03:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<OffsetDateTime>,
    /// The first record that was written so long ago or later, for example 2h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    by: Option<Duration>,
    /// The oldest record that the topics still have. It is always early enough.
    #[arg(long)]
    from_beginning: bool,
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| format!("`{text}` is not a time such as 2026-11-28T03:00:00Z"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "records carry the time of other machines, and no database is asked"
)]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

impl From {
    fn target(&self) -> Target {
        match (self.to, self.by) {
            (Some(time), _) => Target::Time(time),
            (None, Some(span)) => Target::Time(now() - span),
            (None, None) => Target::Beginning,
        }
    }
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Rewind(rewind) => rewind.run(),
        }
    }
}

impl Rewind {
    fn run(self) -> anyhow::Result<()> {
        let target = self.from.target();
        if matches!(target, Target::Time(time) if time > now()) {
            bail!("the time is in the future; offsets are only set back");
        }
        let kafka = self.topics.kafka(&self.suite)?;
        let groups = Group::of(&self.service).map(|name| Group::open(&kafka, name));
        let groups = groups.into_iter().collect::<anyhow::Result<Vec<Group>>>()?;
        // All are asked before one is changed, so that a member of one does not leave half of the work.
        if !self.dry_run {
            for group in &groups {
                group.await_empty(self.wait, &self.service)?;
            }
        }
        let mut any = false;
        for group in &groups {
            let moves = group.moves(target)?;
            if !self.dry_run {
                group.commit(&moves)?;
            }
            for (topic, records) in moves.by_topic() {
                any = true;
                let will = if self.dry_run { "would be read again" } else { "will be read again" };
                say!("{}  {topic}  {records} records {will}", group.name);
            }
        }
        match (any, self.dry_run) {
            (false, _) => say!("{}: there is nothing to read again since then", self.service),
            (true, true) => say!("nothing was changed"),
            (true, false) => say!("start {} now", self.service),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_zone() {
        assert!(moment("2026-11-28T03:00:00Z").is_ok());
        assert!(moment("2026-11-28T03:00:00+01:00").is_ok());
        assert!(moment("2026-11-28 03:00").is_err());
    }
}

//! Plans as diagrams.

use std::fmt::Write as _;

use super::{Definition, Undo};

impl<S> Definition<S> {
    /// Returns the plan as a Mermaid flow chart. Solid arrows go forward, dotted arrows go back.
    pub fn as_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        let groups = self.steps.last().map_or(0, |last| last.group + 1);
        let members = |group: usize| self.steps.iter().filter(move |step| step.group == group);
        for step in &self.steps {
            let (open, close) = if step.kind == super::Kind::Pivot { ("{{", "}}") } else { ("[", "]") };
            let _ = writeln!(text, "    {}{open}{}{close}", step.name, step.name);
            if let Undo::By { name: undo, .. } = &step.undo {
                let _ = writeln!(text, "    {} -. undone by .-> {undo}([{undo}])", step.name);
            }
        }
        for group in 1..groups {
            for before in members(group - 1) {
                for after in members(group) {
                    let _ = writeln!(text, "    {} --> {}", before.name, after.name);
                }
            }
        }
        text
    }
}

//! Restores the state of a saga from its last snapshot and the later log entries. The engine is a pure function, so
//! the same inputs at the same times lead to the same state.

use serde_json::value::RawValue;

use crate::saga::engine::{Input, Shape, State};
use crate::saga::store::LogRow;

/// Applies the entries to the state of a snapshot. `on_reply` gets the kept replies, each with the index of its step.
///
/// # Errors
/// Fails if an entry cannot be read.
pub fn replay<'l>(
    shape: &Shape,
    state: &mut State,
    entries: impl IntoIterator<Item = &'l LogRow>,
    mut on_reply: impl FnMut(usize, &RawValue) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    for entry in entries {
        let input: Input = serde_json::from_str(entry.input.0.get())?;
        if let (Some(reply), Input::Done { step, .. }) = (&entry.reply, &input)
            && let Some(index) = shape.index(step)
        {
            on_reply(index, &reply.0)?;
        }
        state.apply(shape, &input, entry.at);
    }
    Ok(())
}

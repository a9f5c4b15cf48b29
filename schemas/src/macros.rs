//! Macros that give types their message names, one line per type.

/// Declares events: `Type = "name.on.wire.v1", on "topic";`. A version of the data other than 1.0.0 follows the name:
/// `Type = "name.on.wire.v1" "1.1.0", on "topic";`.
macro_rules! events {
    ($($type:ty = $name:literal $($version:literal)?, on $topic:literal;)*) => {
        $(
            impl shared::envelope::Message for $type {
                const TYPE: &'static str = $name;
                const TOPIC: &'static str = $topic;
                $(const DATA_VERSION: &'static str = $version;)?
            }
            impl shared::envelope::Event for $type {}
        )*

        /// The events of this module, for the catalogue.
        pub(crate) fn events() -> Vec<crate::entry::Entry> {
            vec![$(crate::entry::Entry::event::<$type>()),*]
        }
    };
}

/// Declares commands, with the events that answer them: `Type = "name.on.wire.v1", on "topic", answers Reply, or Refusal;`.
macro_rules! commands {
    ($($type:ty = $name:literal, on $topic:literal, answers $reply:ty, or $refusal:ty;)*) => {
        $(
            impl shared::envelope::Message for $type {
                const TYPE: &'static str = $name;
                const TOPIC: &'static str = $topic;
            }
            impl shared::envelope::Command for $type {
                type Reply = $reply;
                type Refusal = $refusal;
            }
        )*

        /// The commands of this module, for the catalogue.
        pub(crate) fn commands() -> Vec<crate::entry::Entry> {
            vec![$(crate::entry::Entry::command::<$type>()),*]
        }
    };
}

pub(crate) use {commands, events};

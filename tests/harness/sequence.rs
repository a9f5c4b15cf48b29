//! Checks that the messages of one aggregate were sent and handled in order.

use std::collections::{HashMap, HashSet};

use rdkafka::message::Message;

use super::Suite;
use super::kafka::header;

/// The ids of a topic's messages by key, in the order of the partition. Only the first copy of a message counts.
type Sequences = HashMap<(String, String), Vec<String>>;

impl Suite {
    /// Checks that every key's messages came to its topic in the order in which they were written, and that the order
    /// service and the orchestrator took them in that order.
    pub async fn every_key_kept_its_order(&self) {
        let sent = self.first_copies();
        for service in super::SERVICES {
            // The rest of the outbox. Its older slots may have been truncated.
            let written = "select topic || ' ' || key || ' ' || (convert_from(body, 'UTF8')::json ->> 'id')
                           from outbox order by position";
            let written = sequences(self.texts(service, written).await);
            assert!(!written.is_empty(), "the outbox of {service} shows nothing");
            assert_subsequences(&written, &sent, &format!("{service} has sent"));
        }
        let timeline = "select service || '.events ' || order_id || ' ' || message_id
                        from order_timeline where service <> 'order' order by order_id, position";
        let timeline = sequences(self.texts("order", timeline).await);
        assert_subsequences(&timeline, &sent, "order has handled");
        // The log does not say on which topic a message came.
        let topics: HashMap<&String, &String> =
            sent.iter().flat_map(|((topic, _), ids)| ids.iter().map(move |id| (id, topic))).collect();
        let handled = "select subject || ' ' || message_id from saga_log join saga using (saga_id)
                       where message_id is not null order by saga_id, saga_log.sequence";
        let handled = self.texts("orchestrator", handled).await.into_iter().map(|row| {
            let id = row.split(' ').nth(1).unwrap_or_default().to_owned();
            let topic = topics.get(&id).unwrap_or_else(|| panic!("{id} was handled, but is on no topic"));
            format!("{topic} {row}")
        });
        assert_subsequences(&sequences(handled.collect()), &sent, "the orchestrator has handled");
    }

    fn first_copies(&self) -> Sequences {
        let (mut seen, mut sent) = (HashSet::new(), Sequences::new());
        for record in self.records() {
            let id = header(&record, "ce_id").expect("an id");
            let topic = record.topic().split_once('.').map_or(record.topic(), |(_, topic)| topic).to_owned();
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            if seen.insert(id.clone()) {
                sent.entry((topic, key)).or_default().push(id);
            }
        }
        sent
    }
}

fn sequences(rows: Vec<String>) -> Sequences {
    let mut sequences = Sequences::new();
    for row in rows {
        let words: Vec<&str> = row.split(' ').collect();
        let [topic, key, id] = words[..] else { panic!("three words: {row}") };
        sequences.entry((topic.to_owned(), key.to_owned())).or_default().push(id.to_owned());
    }
    sequences
}

/// Checks that `wholes` has all of `parts`, in the same order.
fn assert_subsequences(parts: &Sequences, wholes: &Sequences, who: &str) {
    for (place, part) in parts {
        let whole =
            wholes.get(place).unwrap_or_else(|| panic!("{who}: nothing of {place:?} is on the topics"));
        let known: HashSet<&String> = part.iter().collect();
        let there: Vec<&String> = whole.iter().filter(|id| known.contains(id)).collect();
        assert_eq!(there, part.iter().collect::<Vec<_>>(), "{who} {place:?} in another order");
    }
}

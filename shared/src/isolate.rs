//! Keeps one bad item of a batch from failing the others.

use crate::fault::{Class, Fault};

/// Runs `work` on a whole batch. After a permanent failure it runs `work` on each item alone, so that one bad item does
/// not fail the others.
///
/// `work` returns its items with the result. It owns them, because a future that borrows them could not be shown to be
/// `Send` (rust-lang/rust#134997).
///
/// `done` gets the items and the result of every run that counts, as soon as the run ends. A batch with a transient
/// failure is one such run, because all its items would meet the same failure.
pub async fn together_or_each<T, R, F>(
    items: Vec<T>,
    work: impl Fn(Vec<T>) -> F,
    mut done: impl FnMut(Vec<T>, Result<R, Fault>),
) where
    F: Future<Output = (Vec<T>, Result<R, Fault>)>,
{
    let (items, result) = work(items).await;
    let one_may_be_bad = items.len() > 1 && is_permanent(&result);
    if !one_may_be_bad {
        return done(items, result);
    }
    for item in items {
        let (item, result) = work(vec![item]).await;
        done(item, result);
    }
}

fn is_permanent<R>(result: &Result<R, Fault>) -> bool {
    result.as_ref().is_err_and(|fault| fault.class() == Class::Permanent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on numbers, where 0 is bad, and returns the runs that count.
    async fn runs(items: &[u32], fault: fn(String) -> Fault) -> Vec<(Vec<u32>, bool)> {
        let mut runs = Vec::new();
        let work = async |items: Vec<u32>| {
            let result = if items.contains(&0) { Err(fault("0 is bad".to_owned())) } else { Ok(()) };
            (items, result)
        };
        together_or_each(items.to_vec(), work, |items, result| runs.push((items, result.is_ok()))).await;
        runs
    }

    #[tokio::test]
    async fn a_good_batch_is_one_run() {
        assert_eq!(runs(&[1, 2], Fault::permanent).await, [(vec![1, 2], true)]);
        assert_eq!(runs(&[], Fault::permanent).await, [(vec![], true)]);
    }

    #[tokio::test]
    async fn a_bad_item_fails_alone() {
        let expected = [(vec![1], true), (vec![0], false), (vec![2], true)];
        assert_eq!(runs(&[1, 0, 2], Fault::permanent).await, expected);
        assert_eq!(runs(&[0], Fault::permanent).await, [(vec![0], false)]);
    }

    #[tokio::test]
    async fn a_batch_to_be_retried_is_not_taken_apart() {
        assert_eq!(runs(&[1, 0], Fault::retry).await, [(vec![1, 0], false)]);
    }
}

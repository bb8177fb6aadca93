//! The ledger's items in memory, for the command line and the demo. Does what the table does, within one process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::item::{Change, Condition, Item, Value, Write, Written};

/// Items by id.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<String, Item>>);

impl Memory {
    /// Writes all of them or none.
    pub(super) fn write(&self, writes: &[Write]) -> Written {
        let mut items = self.items();
        for (at, write) in writes.iter().enumerate() {
            let item = items.get(&write.id).cloned().unwrap_or_default();
            if !write.if_any.is_empty() && !write.if_any.iter().any(|it| holds(it, &item)) {
                return Written::No(at);
            }
        }
        let mut last = Item::new();
        for write in writes {
            let item = items.entry(write.id.clone()).or_default();
            write.changes.iter().for_each(|change| apply(change, item));
            last = item.clone();
        }
        Written::Yes(last)
    }

    pub(super) fn read(&self, id: &str) -> Item {
        self.items().get(id).cloned().unwrap_or_default()
    }

    pub(super) fn read_many(&self, ids: &[String]) -> BTreeMap<String, Item> {
        let items = self.items();
        ids.iter()
            .filter_map(|id| Some((id.clone(), items.get(id)?.clone())))
            .collect()
    }

    /// Ignoring poisoning is safe, because a write is never left half done.
    fn items(&self) -> MutexGuard<'_, BTreeMap<String, Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holds(condition: &Condition, item: &Item) -> bool {
    match condition {
        Condition::Absent(name) => !item.contains_key(*name),
        Condition::Is(name, value) => item.get(*name) == Some(value),
        Condition::Below(name, bound) => {
            matches!(item.get(*name), Some(Value::Number(number)) if number < bound)
        }
        Condition::Within(name, least, most) => {
            matches!(item.get(*name), Some(Value::Number(number)) if (least..=most).contains(&number))
        }
        Condition::NoItem => item.is_empty(),
    }
}

fn apply(change: &Change, item: &mut Item) {
    match change {
        Change::Set(name, value) => {
            item.insert((*name).to_owned(), value.clone());
        }
        Change::Remove(name) => {
            item.remove(*name);
        }
        Change::Add(name, number) => {
            let before = match item.get(*name) {
                Some(Value::Number(before)) => *before,
                _ => 0,
            };
            item.insert((*name).to_owned(), Value::Number(before + number));
        }
        Change::Include(name, text) => {
            let mut set = set(name, item);
            set.insert(text.clone());
            item.insert((*name).to_owned(), Value::Set(set));
        }
        Change::Exclude(name, texts) => {
            let left: BTreeSet<String> = set(name, item).difference(texts).cloned().collect();
            item.remove(*name);
            if !left.is_empty() {
                item.insert((*name).to_owned(), Value::Set(left));
            }
        }
    }
}

fn set(name: &str, item: &Item) -> BTreeSet<String> {
    match item.get(name) {
        Some(Value::Set(set)) => set.clone(),
        _ => BTreeSet::new(),
    }
}

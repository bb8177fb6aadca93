//! The ledger's items in a DynamoDB table, with conditional writes and one kind of transaction.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnValue, TransactWriteItem, Update,
};

use super::item::{Change, Condition, Item, Value, Write, Written};
use crate::aws::{Aws, TruncationCheck, classify};
use crate::error::Error;
use crate::invocation::Backoff;

/// Key of an item.
const KEY: &str = "id";

/// Largest number of items in a batch (DynamoDB API reference, "BatchGetItem").
const MOST_KEYS: usize = 100;

/// A table whose key is the string attribute `id`.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    client: aws_sdk_dynamodb::Client,
    name: String,
}

impl Table {
    pub(crate) fn of(aws: &Aws, name: &str) -> Table {
        // A table answers within milliseconds. A call that takes seconds is better repeated.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(2))
            .operation_timeout(Duration::from_secs(5))
            .build();
        let config = aws_sdk_dynamodb::config::Builder::from(aws.sdk_config())
            .timeout_config(timeouts)
            .interceptor(TruncationCheck(has_a_body))
            .interceptor(aws.counting())
            .build();
        Table {
            client: aws_sdk_dynamodb::Client::from_conf(config),
            name: name.to_owned(),
        }
    }

    /// UpdateItem: writes one item.
    ///
    /// # Errors
    /// [`Error`] if there is no answer. It is then unknown whether the write took effect.
    pub(crate) async fn write(&self, write: Write) -> Result<Written, Error> {
        let terms = Terms::of(&write);
        let answer = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(write.id))
            .update_expression(terms.update)
            .set_condition_expression(terms.condition)
            .set_expression_attribute_names(Some(terms.names.into_iter().collect()))
            .set_expression_attribute_values(Some(terms.values.into_iter().collect()))
            .return_values(ReturnValue::AllNew)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(Written::Yes(read(answer.attributes.into_iter().flatten()))),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(Written::No(0)),
                Some(UpdateItemError::TransactionConflictException(_)) => Ok(Written::Contended),
                _ => Err(classify("dynamodb:UpdateItem", &self.name, &error)),
            },
        }
    }

    /// TransactWriteItems: writes two items or neither. Repeated calls with the same token take effect once.
    ///
    /// # Errors
    /// As [`Table::write`].
    pub(crate) async fn write_both(
        &self,
        writes: [Write; 2],
        token: &str,
    ) -> Result<Written, Error> {
        // IAM has no action for TransactWriteItems. It requires the action of each write.
        let call = "dynamodb:UpdateItem";
        let mut items = Vec::new();
        for write in writes {
            let terms = Terms::of(&write);
            let update = Update::builder()
                .table_name(&self.name)
                .key(KEY, AttributeValue::S(write.id))
                .update_expression(terms.update)
                .set_condition_expression(terms.condition)
                .set_expression_attribute_names(Some(terms.names.into_iter().collect()))
                .set_expression_attribute_values(Some(terms.values.into_iter().collect()))
                .build()
                .map_err(|error| Error::Unavailable {
                    call,
                    resource: self.name.clone(),
                    message: error.to_string(),
                })?;
            items.push(TransactWriteItem::builder().update(update).build());
        }
        let answer = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items))
            .client_request_token(token)
            .send()
            .await;
        let error = match answer {
            Ok(_) => return Ok(Written::Yes(Item::new())),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionInProgressException(_)) => {
                Ok(Written::Contended)
            }
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                let reasons = cancelled.cancellation_reasons();
                let codes = || reasons.iter().map(|reason| reason.code().unwrap_or("None"));
                // A condition that does not hold is final. A condition that could not be checked is not.
                if let Some(at) = codes().position(|code| code == "ConditionalCheckFailed") {
                    return Ok(Written::No(at));
                }
                match codes().find(|code| *code != "None") {
                    Some("TransactionConflict") => Ok(Written::Contended),
                    code => Err(Error::Unavailable {
                        call,
                        resource: self.name.clone(),
                        message: format!("cancelled: {}", code.unwrap_or("no reason given")),
                    }),
                }
            }
            _ => Err(classify(call, &self.name, &error)),
        }
    }

    /// GetItem, with a consistent read.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn read(&self, id: &str) -> Result<Item, Error> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(id.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| classify("dynamodb:GetItem", &self.name, &error))?;
        Ok(read(answer.item.into_iter().flatten()))
    }

    /// BatchGetItem: one attribute of each of these items, by item id. Leaves out items that do not exist. The reads
    /// are eventually consistent. Keys that DynamoDB leaves unprocessed are requested again for as long as the caller
    /// waits.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn read_many(
        &self,
        ids: &[String],
        attribute: &str,
    ) -> Result<BTreeMap<String, Item>, Error> {
        let call = "dynamodb:BatchGetItem";
        let unavailable = |message: String| Error::Unavailable {
            call,
            resource: self.name.clone(),
            message,
        };
        let key = |id: &String| HashMap::from([(KEY.to_owned(), AttributeValue::S(id.clone()))]);
        let mut found = BTreeMap::new();
        for ids in ids.chunks(MOST_KEYS) {
            let mut keys: Vec<_> = ids.iter().map(key).collect();
            let mut backoff = Backoff::new(Duration::from_millis(75), Duration::from_secs(3));
            loop {
                let asked = KeysAndAttributes::builder()
                    .set_keys(Some(keys))
                    .projection_expression("#id, #it")
                    .expression_attribute_names("#id", KEY)
                    .expression_attribute_names("#it", attribute)
                    .build()
                    .map_err(|error| unavailable(error.to_string()))?;
                let request = self.client.batch_get_item();
                // Boxed because the SDK's futures are large.
                let answer = Box::pin(request.request_items(&self.name, asked).send()).await;
                let answer = answer.map_err(|error| classify(call, &self.name, &error))?;
                // Otherwise every image would count as one for which the guard received no event.
                let Some(mut items) = answer.responses else {
                    return Err(unavailable("the answer has no items".into()));
                };
                for mut item in items.remove(&self.name).into_iter().flatten() {
                    if let Some(AttributeValue::S(id)) = item.remove(KEY) {
                        found.insert(id, read(item.into_iter()));
                    }
                }
                let mut left = answer.unprocessed_keys.unwrap_or_default();
                keys = match left.remove(&self.name) {
                    Some(left) if !left.keys.is_empty() => left.keys,
                    _ => break,
                };
                backoff.pause().await;
            }
        }
        Ok(found)
    }
}

/// Whether an answer has a body at all. The SDK treats an answer without a body like one without items. Such an answer
/// would look like a table that knows of no discard. The SDK itself rejects a body that ends in the middle.
fn has_a_body(bytes: &[u8]) -> bool {
    !bytes.is_empty()
}

/// A write as DynamoDB expressions. Every name is a placeholder, because some names are reserved words.
#[derive(Default)]
struct Terms {
    update: String,
    condition: Option<String>,
    names: BTreeMap<String, String>,
    values: BTreeMap<String, AttributeValue>,
}

impl Terms {
    fn of(write: &Write) -> Terms {
        let mut terms = Terms::default();
        let conditions: Vec<String> = write
            .if_any
            .iter()
            .map(|condition| match condition {
                Condition::Absent(name) => format!("attribute_not_exists({})", terms.name(name)),
                Condition::Is(name, value) => {
                    format!("{} = {}", terms.name(name), terms.value(attribute(value)))
                }
                Condition::Below(name, bound) => {
                    let bound = AttributeValue::N(bound.to_string());
                    format!("{} < {}", terms.name(name), terms.value(bound))
                }
                Condition::Within(name, least, most) => {
                    let [least, most] =
                        [least, most].map(|bound| AttributeValue::N(bound.to_string()));
                    format!(
                        "{} BETWEEN {} AND {}",
                        terms.name(name),
                        terms.value(least),
                        terms.value(most)
                    )
                }
                Condition::NoItem => format!("attribute_not_exists({})", terms.name(KEY)),
            })
            .collect();
        terms.condition = Some(conditions.join(" OR ")).filter(|all| !all.is_empty());
        // In an expression, each kind of clause may occur once and has all changes of that kind.
        let mut clauses: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for change in &write.changes {
            let (kind, term) = match change {
                Change::Set(name, value) => (
                    "SET",
                    format!("{} = {}", terms.name(name), terms.value(attribute(value))),
                ),
                Change::Remove(name) => ("REMOVE", terms.name(name)),
                Change::Add(name, number) => {
                    let number = AttributeValue::N(number.to_string());
                    (
                        "ADD",
                        format!("{} {}", terms.name(name), terms.value(number)),
                    )
                }
                Change::Include(name, text) => {
                    let text = AttributeValue::Ss(vec![text.clone()]);
                    ("ADD", format!("{} {}", terms.name(name), terms.value(text)))
                }
                Change::Exclude(name, texts) => {
                    let texts = AttributeValue::Ss(texts.iter().cloned().collect());
                    (
                        "DELETE",
                        format!("{} {}", terms.name(name), terms.value(texts)),
                    )
                }
            };
            clauses.entry(kind).or_default().push(term);
        }
        terms.update = clauses
            .into_iter()
            .map(|(kind, all)| format!("{kind} {}", all.join(", ")))
            .collect::<Vec<_>>()
            .join(" ");
        terms
    }

    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}

fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Text(text) => AttributeValue::S(text.clone()),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::Set(texts) => AttributeValue::Ss(texts.iter().cloned().collect()),
        // The guard never writes this.
        Value::Foreign => AttributeValue::Null(true),
    }
}

/// The attributes without the key. An attribute of a type that the guard does not write is kept as [`Value::Foreign`],
/// because an unreadable attribute is not an absent one.
fn read(attributes: impl Iterator<Item = (String, AttributeValue)>) -> Item {
    let all = attributes.map(|(name, value)| {
        let value = match value {
            AttributeValue::S(text) => Value::Text(text),
            AttributeValue::N(number) => number.parse().map_or(Value::Foreign, Value::Number),
            AttributeValue::Ss(texts) => Value::Set(texts.into_iter().collect()),
            _ => Value::Foreign,
        };
        (name, value)
    });
    all.filter(|(name, _)| name != KEY).collect()
}

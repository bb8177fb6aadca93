//! The actions of SNS.

use std::collections::BTreeMap;

use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Message, MessageAttribute, World};
use crate::xml::Xml;

/// The API version in every request.
pub(crate) const VERSION: &str = "2010-03-31";

/// The namespace of the answers.
pub(crate) const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";

/// Maximum size of body and attributes together: "256 KiB in size (262,144 bytes, not 262,144 characters)".
const LARGEST_MESSAGE: usize = 262_144;

pub(crate) fn call(world: &mut World, action: &str, form: &Form) -> Result<Xml, Refusal> {
    match action {
        "Publish" => publish(world, form),
        "GetTopicAttributes" => get_topic_attributes(world, form),
        _ => Err(Refusal::unknown_action(action)),
    }
}

/// `AuthorizationError`, in IAM's wording for an identity without the permission.
pub(crate) fn denied(world: &World, action: &str, form: &Form) -> Refusal {
    let on = match form.get("TopicArn") {
        Some(arn) => format!(" on resource: {arn}"),
        None => String::new(),
    };
    Refusal::new(
        "AuthorizationError",
        format!(
            "User: {} is not authorized to perform: SNS:{action}{on} because no identity-based policy \
             allows the SNS:{action} action",
            world.caller_arn()
        ),
    )
    .with_status(403)
}

fn invalid(what: &str) -> Refusal {
    Refusal::new("InvalidParameter", format!("Invalid parameter: {what}"))
}

fn topic_arn<'a>(world: &World, form: &Form<'a>) -> Result<&'a str, Refusal> {
    let arn = form.get("TopicArn").ok_or_else(|| invalid("TopicArn"))?;
    if !arn.starts_with("arn:") || arn.split(':').count() != 6 {
        return Err(invalid("TopicArn"));
    }
    if !world.topics.contains_key(arn) {
        return Err(Refusal::new("NotFound", "Topic does not exist").with_status(404));
    }
    Ok(arn)
}

fn publish(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let topic_arn = topic_arn(world, form)?;
    let message = form.get("Message").unwrap_or_default();
    if message.is_empty() {
        return Err(invalid("Empty message"));
    }
    let attributes = message_attributes(form)?;
    let attributes_size: usize = attributes
        .iter()
        .map(|(name, attribute)| name.len() + attribute.data_type.len() + attribute.value.len())
        .sum();
    if message.len() + attributes_size > LARGEST_MESSAGE {
        return Err(invalid("Message too long"));
    }
    let subject = form.get("Subject");
    if subject.is_some_and(|subject| !is_subject(subject)) {
        return Err(invalid("Subject"));
    }
    let message_structure = form.get("MessageStructure");
    match message_structure {
        None => {}
        Some("json") => check_bodies(message)?,
        Some(_) => return Err(invalid("MessageStructure")),
    }
    let id = world.fresh_id("message");
    world.messages.push(Message {
        id: id.clone(),
        topic_arn: topic_arn.to_owned(),
        subject: subject.map(str::to_owned),
        message: message.to_owned(),
        message_structure: message_structure.map(str::to_owned),
        attributes,
    });
    Ok(Xml::fragment(|xml| xml.text("MessageId", id)))
}

/// Whether a subject is valid, by the strictest rules that SNS's documentation has had. It must be printable ASCII,
/// without line breaks or control characters. It has at most 100 characters, and begins with a visible one.
fn is_subject(subject: &str) -> bool {
    subject.len() <= 100
        && subject.starts_with(|c: char| c.is_ascii_graphic())
        && subject.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

/// Checks a message with the structure `json`: "A syntactically valid JSON object" with "at least a top-level JSON key
/// of `default` with a value that is a string".
fn check_bodies(message: &str) -> Result<(), Refusal> {
    let Ok(serde_json::Value::Object(bodies)) = serde_json::from_str(message) else {
        return Err(invalid(
            "Message Structure - JSON message body failed to parse",
        ));
    };
    match bodies.get("default") {
        Some(serde_json::Value::String(_)) => Ok(()),
        _ => Err(invalid(
            "Message Structure - No default entry in JSON message body",
        )),
    }
}

fn message_attributes(form: &Form) -> Result<BTreeMap<String, MessageAttribute>, Refusal> {
    let mut attributes = BTreeMap::new();
    for entry in form.structures("MessageAttributes.entry") {
        let value = entry.structure("Value");
        let text = value
            .get("StringValue")
            .or_else(|| value.get("BinaryValue"))
            .unwrap_or_default();
        match (entry.get("Name"), value.get("DataType")) {
            (Some(name), Some(data_type)) if !text.is_empty() => attributes.insert(
                name.to_owned(),
                MessageAttribute {
                    data_type: data_type.to_owned(),
                    value: text.to_owned(),
                },
            ),
            _ => {
                return Err(Refusal::new(
                    "ParameterValueInvalid",
                    "The message attribute must have a name, a type and a value.",
                ));
            }
        };
    }
    Ok(attributes)
}

fn get_topic_attributes(world: &World, form: &Form) -> Result<Xml, Refusal> {
    let arn = topic_arn(world, form)?;
    let topic = world.topics.get(arn).copied().unwrap_or_default();
    let attributes = [
        ("TopicArn", arn.to_owned()),
        ("Owner", world.account.clone()),
        ("SubscriptionsConfirmed", topic.confirmed.to_string()),
        ("SubscriptionsPending", topic.pending.to_string()),
        ("SubscriptionsDeleted", "0".to_owned()),
    ];
    Ok(Xml::fragment(|xml| {
        xml.element("Attributes", |xml| {
            for (key, value) in attributes {
                xml.element("entry", |xml| {
                    xml.text("key", key);
                    xml.text("value", value);
                });
            }
        });
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard";

    fn publish_with(parameters: &[(&str, &str)]) -> Result<World, String> {
        let mut world = World::default();
        let mut params = BTreeMap::from([
            ("TopicArn".to_owned(), TOPIC.to_owned()),
            ("Message".to_owned(), "hello".to_owned()),
        ]);
        for (key, value) in parameters {
            params.insert(key.to_string(), value.to_string());
        }
        match call(&mut world, "Publish", &Form::new(&params)) {
            Ok(_) => Ok(world),
            Err(refusal) => {
                assert!(world.messages.is_empty());
                Err(refusal.to_string())
            }
        }
    }

    #[test]
    fn a_message_is_kept_with_its_attributes() {
        let world = publish_with(&[
            ("Subject", "A subject"),
            ("MessageAttributes.entry.1.Name", "verdict"),
            ("MessageAttributes.entry.1.Value.DataType", "String"),
            ("MessageAttributes.entry.1.Value.StringValue", "mismatch"),
        ])
        .unwrap();
        let message = &world.messages[0];
        assert_eq!(message.topic_arn, TOPIC);
        assert_eq!(message.subject.as_deref(), Some("A subject"));
        assert_eq!(message.body("email"), "hello");
        assert_eq!(message.attributes["verdict"].value, "mismatch");
    }

    #[test]
    fn each_protocol_gets_its_own_body_and_the_others_the_default() {
        let world = publish_with(&[
            ("MessageStructure", "json"),
            ("Message", r#"{"default":"d","sqs":"{}","email":7}"#),
        ])
        .unwrap();
        let message = &world.messages[0];
        assert_eq!(message.body("sqs"), "{}");
        assert_eq!(message.body("https"), "d");
        assert_eq!(message.body("email"), "d");
    }

    #[test]
    fn messages_that_break_the_rules_are_refused() {
        let too_long = "x".repeat(LARGEST_MESSAGE + 1);
        let long_subject = "s".repeat(101);
        for (parameters, expected) in [
            (
                vec![("Message", "")],
                "InvalidParameter: Invalid parameter: Empty message",
            ),
            (
                vec![("Message", too_long.as_str())],
                "InvalidParameter: Invalid parameter: Message too long",
            ),
            (
                vec![("Subject", long_subject.as_str())],
                "InvalidParameter: Invalid parameter: Subject",
            ),
            (
                vec![("Subject", "two\nlines")],
                "InvalidParameter: Invalid parameter: Subject",
            ),
            (
                vec![("Subject", "caf\u{e9}")],
                "InvalidParameter: Invalid parameter: Subject",
            ),
            (
                vec![("Subject", "")],
                "InvalidParameter: Invalid parameter: Subject",
            ),
            (
                vec![("MessageStructure", "json")],
                "InvalidParameter: Invalid parameter: Message Structure - JSON message body failed to parse",
            ),
            (
                vec![
                    ("MessageStructure", "json"),
                    ("Message", r#"{"email":"e"}"#),
                ],
                "InvalidParameter: Invalid parameter: Message Structure - No default entry in JSON message body",
            ),
            (
                vec![("TopicArn", "arn:aws:sns:eu-west-1:123456789012:other")],
                "NotFound: Topic does not exist",
            ),
            (
                vec![("TopicArn", "ami-billing-guard")],
                "InvalidParameter: Invalid parameter: TopicArn",
            ),
        ] {
            assert_eq!(publish_with(&parameters).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_message_of_exactly_the_limit_is_taken() {
        let longest = "x".repeat(LARGEST_MESSAGE);
        let subject = "s".repeat(100);
        assert!(publish_with(&[("Message", &longest), ("Subject", &subject)]).is_ok());
    }
}

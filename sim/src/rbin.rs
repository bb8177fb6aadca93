//! The Recycle Bin's actions for its rules. The actions for its content belong to EC2.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::rest_json::{document, refusal, refused};
use crate::world::World;

type Params = BTreeMap<String, String>;

/// The action and the parameters of a request, if its path belongs to the Recycle Bin.
pub(crate) fn question(method: &str, path: &str) -> Option<(String, Params)> {
    let rest = path.strip_prefix("/rules")?;
    let segments: Vec<&str> = rest.split('/').collect();
    Some(match (method, segments.as_slice()) {
        ("GET", ["", id]) => {
            let params = Params::from([("Identifier".to_owned(), (*id).to_owned())]);
            ("GetRule".to_owned(), params)
        }
        _ => (format!("{method} {path}"), Params::new()),
    })
}

pub(crate) fn call(world: &World, action: &str, params: &Params) -> Result<Json, Refusal> {
    match action {
        "GetRule" => get_rule(world, params),
        _ => Err(refusal(
            "UnknownOperationException",
            format!("The operation {action} does not exist, or is not simulated."),
        )),
    }
}

fn get_rule(world: &World, params: &Params) -> Result<Json, Refusal> {
    let id = params.get("Identifier").map_or("", String::as_str);
    if id.len() != 11 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let message = format!("The rule identifier '{id}' is not valid.");
        return Err(refusal("ValidationException", message)
            .with_detail("Reason", "INVALID_PARAMETER_VALUE".into()));
    }
    let rule = world.recycle_bin_rules.iter().find(|rule| rule.id == id);
    let rule = rule.ok_or_else(|| {
        refusal(
            "ResourceNotFoundException",
            format!("The rule '{id}' does not exist."),
        )
        .with_detail("Reason", "RULE_NOT_FOUND".into())
    })?;
    Ok(json!({
        "Identifier": rule.id,
        "Description": "",
        "ResourceType": "EC2_IMAGE",
        "RetentionPeriod": {
            "RetentionPeriodValue": rule.retention_days,
            "RetentionPeriodUnit": "DAYS",
        },
        "ResourceTags": [{
            "ResourceTagKey": rule.tag_key,
            "ResourceTagValue": rule.tag_value,
        }],
        "Status": rule.status,
        "LockState": "unlocked",
        "RuleArn": arn(world, &rule.id),
    }))
}

fn arn(world: &World, id: &str) -> String {
    format!("arn:aws:rbin:{}:{}:rule/{id}", world.region, world.account)
}

/// The reply to a call.
pub(crate) fn reply(request_id: &str, result: Result<Json, Refusal>) -> Reply {
    match result {
        Ok(answer) => document(request_id, &answer),
        Err(refusal) => refused(request_id, refusal),
    }
}

/// Too many requests. The API's model has no error for it. This one is common to the APIs of this protocol.
pub(crate) fn throttled() -> Refusal {
    refusal("ThrottlingException", "Rate exceeded")
}

/// `AccessDeniedException`, in IAM's wording for an identity without the permission.
pub(crate) fn denied(world: &World, action: &str, params: &Params) -> Refusal {
    let id = params.get("Identifier").map_or("*", String::as_str);
    refusal(
        "AccessDeniedException",
        format!(
            "User: {} is not authorized to perform: rbin:{action} on resource: {} because no identity-based policy \
             allows the rbin:{action} action",
            world.caller_arn(),
            arn(world, id)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::RecycleBinRule;

    fn get(world: &World, id: &str) -> Result<Json, String> {
        let (action, params) = question("GET", &format!("/rules/{id}")).unwrap();
        call(world, &action, &params).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_rule_says_its_status() {
        let mut world = World::default();
        let rule = get(&world, RecycleBinRule::ID).unwrap();
        assert_eq!(rule["Status"], "available");
        assert_eq!(
            rule["RuleArn"],
            "arn:aws:rbin:eu-west-1:123456789012:rule/JSzDHyLPHm0"
        );
        for rule in &mut world.recycle_bin_rules {
            rule.status = "pending".into();
        }
        assert_eq!(
            get(&world, RecycleBinRule::ID).unwrap()["Status"],
            "pending"
        );
    }

    #[test]
    fn a_rule_that_does_not_exist_is_not_found_and_another_action_not_known() {
        let world = World::default();
        let refused = |id| get(&world, id).unwrap_err();
        assert_eq!(refused("00000000000"), "ResourceNotFoundException");
        assert_eq!(refused("0"), "ValidationException");
        assert_eq!(refused("a/b"), "UnknownOperationException");
        assert_eq!(question("GET", "/snapshots"), None);
    }
}

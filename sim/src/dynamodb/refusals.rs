//! Errors of DynamoDB.

use serde_json::{Value as Json, json};

use crate::refusal::Refusal;

/// A request that DynamoDB refuses, too.
pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("ValidationException", message)
}

/// A request that DynamoDB may accept but the simulator does not support, because the guard does not send it.
pub(super) fn unknown(what: impl std::fmt::Display) -> Refusal {
    invalid(format!("sim does not know {what}."))
}

/// Too many requests for the table.
pub(crate) fn throttled() -> Refusal {
    Refusal::new(
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider increasing \
         your provisioning level with the UpdateTable API.",
    )
}

/// An internal error of the service.
pub(crate) fn failed() -> Refusal {
    Refusal::new("InternalServerError", "Internal server error").with_status(500)
}

/// Conflict with another transaction on an item. A transaction is cancelled, with the conflict as the reason of its
/// last write. A single call is refused.
pub(crate) fn conflicting(action: &str, body: &str) -> Refusal {
    let conflict = Refusal::new(
        "TransactionConflictException",
        "Transaction is ongoing for the item",
    );
    let body: Json = serde_json::from_str(body).unwrap_or_default();
    match body.get("TransactItems").and_then(Json::as_array) {
        Some(operations) if action == "TransactWriteItems" => {
            let mut reasons = vec![None; operations.len().saturating_sub(1)];
            reasons.push(Some(&conflict));
            cancelled(reasons)
        }
        _ => conflict,
    }
}

/// A cancelled transaction. `writes` has the reason why each write failed, or `None` if it did not.
pub(super) fn cancelled(writes: Vec<Option<&Refusal>>) -> Refusal {
    let code = |refusal: &Refusal| match refusal.code.as_str() {
        "ValidationException" => "ValidationError".to_owned(),
        code => code.trim_end_matches("Exception").to_owned(),
    };
    let codes: Vec<String> = writes
        .iter()
        .map(|write| write.map_or_else(|| "None".to_owned(), code))
        .collect();
    let reasons: Vec<Json> = std::iter::zip(&writes, &codes)
        .map(|(write, code)| match write {
            Some(refusal) => json!({"Code": code, "Message": refusal.message}),
            None => json!({ "Code": code }),
        })
        .collect();
    Refusal::new(
        "TransactionCanceledException",
        format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        ),
    )
    .with_detail("CancellationReasons", Json::Array(reasons))
}

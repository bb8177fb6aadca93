//! The log of calls, and the faults that a test can inject.

use std::collections::BTreeMap;
use std::time::Duration;

/// The service that a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Amazon EC2, the `ec2Query` protocol, API version 2016-11-15.
    Ec2,
    /// Amazon SNS, the `awsQuery` protocol, API version 2010-03-31.
    Sns,
    /// AWS STS, the `awsQuery` protocol, API version 2011-06-15.
    Sts,
    /// Amazon DynamoDB, the `AWS JSON 1.0` protocol, API version 2012-08-10.
    DynamoDb,
    /// The EBS direct APIs, the `AWS restJson1` protocol, API version 2019-11-02.
    Ebs,
    /// The Recycle Bin, the `AWS restJson1` protocol, API version 2021-06-15.
    Rbin,
    /// Amazon SQS, the `AWS JSON 1.0` protocol, API version 2012-11-05.
    Sqs,
}

/// One request that reached the server, whether it was served, refused or disturbed by a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The service that it was for.
    pub service: Service,
    /// The Region that it was signed for, or the world's own if it was not signed.
    pub region: String,
    /// The action, such as `DescribeImages`.
    pub action: String,
    /// The parameters by name.
    ///
    /// - EC2, SNS and STS: all form parameters as received, such as `ImageId.1`, including `Action` and `Version`.
    /// - DynamoDB: the JSON document as `Body`, and the table as `TableName`. The tables of a transaction or a batch
    ///   are separated by commas.
    /// - EBS direct APIs: the names of the API reference, such as `SnapshotId`, `BlockIndex`, `BlockToken` and
    ///   `NextToken`.
    /// - Recycle Bin: the name of the API reference, `Identifier`.
    /// - SQS: the JSON document as `Body`, and its members by name: `QueueUrl`, `ReceiptHandle`, `VisibilityTimeout`.
    pub params: BTreeMap<String, String>,
    /// The server's answer.
    pub answer: Answer,
}

impl Call {
    /// The JSON document of a call to DynamoDB or SQS, or null for any other call.
    pub fn body(&self) -> serde_json::Value {
        let body = self.params.get("Body").map(String::as_str);
        serde_json::from_str(body.unwrap_or_default()).unwrap_or_default()
    }

    /// The snapshot and the block index of a `GetSnapshotBlock` call, or `None` for any other call.
    pub fn block(&self) -> Option<(&str, u64)> {
        if self.action != "GetSnapshotBlock" {
            return None;
        }
        let index = self.params.get("BlockIndex")?.parse().ok()?;
        Some((self.params.get("SnapshotId")?, index))
    }
}

/// Result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Served.
    Ok,
    /// Refused because of the request or the world's state, with this error code.
    Refused(String),
    /// Disturbed by an injected fault. Whether it took effect depends on the kind: see [`FaultKind::takes_effect`].
    Fault(FaultKind),
}

/// A disturbance of some calls of one action.
///
/// If several faults match a call, the one that was injected first applies. All of them count the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The action whose calls are counted and disturbed.
    pub action: String,
    /// Restricts the fault to calls whose parameter of this name has (`true`) or does not have (`false`) this value.
    /// `None` means all calls.
    pub of: Option<(String, String, bool)>,
    /// The calls to disturb.
    pub calls: Calls,
    /// The kind of disturbance.
    pub kind: FaultKind,
}

impl Fault {
    /// Disturbs the `n`th call (1 is the next one) of `action`.
    pub fn nth(action: impl Into<String>, n: usize, kind: FaultKind) -> Fault {
        Fault {
            action: action.into(),
            of: None,
            calls: Calls::Nth(n),
            kind,
        }
    }

    /// Disturbs the `n`th call (1 is the next one) of `action` and all later ones.
    pub fn from_nth(action: impl Into<String>, n: usize, kind: FaultKind) -> Fault {
        Fault {
            action: action.into(),
            of: None,
            calls: Calls::From(n),
            kind,
        }
    }

    /// Disturbs every call of `action` from now on.
    pub fn always(action: impl Into<String>, kind: FaultKind) -> Fault {
        Fault::from_nth(action, 1, kind)
    }

    /// Counts and disturbs only calls whose parameter has this value: `with("ImageId.1", "ami-…")`.
    pub fn with(mut self, parameter: &str, value: &str) -> Fault {
        self.of = Some((parameter.into(), value.into(), true));
        self
    }

    /// Counts and disturbs only calls whose parameter is absent or has another value: `without("Owner.1", "self")`.
    pub fn without(mut self, parameter: &str, value: &str) -> Fault {
        self.of = Some((parameter.into(), value.into(), false));
        self
    }

    fn is_of(&self, action: &str, params: &BTreeMap<String, String>) -> bool {
        let asked = |(parameter, value, wanted): &(String, String, bool)| {
            (params.get(parameter) == Some(value)) == *wanted
        };
        self.action == action && self.of.as_ref().is_none_or(asked)
    }
}

/// Calls of one action, counted from the injection of the fault. 1 is the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Only this one.
    Nth(usize),
    /// This one and all later ones.
    From(usize),
}

impl Calls {
    fn include(self, ordinal: usize) -> bool {
        match self {
            Calls::Nth(n) => ordinal == n,
            Calls::From(n) => ordinal >= n,
        }
    }
}

/// Kind of disturbance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Too many requests. All have the status 400, except EC2's.
    ///
    /// - EC2: `RequestLimitExceeded` (503)
    /// - SNS and STS: `Throttling`
    /// - DynamoDB: `ProvisionedThroughputExceededException`
    /// - EBS direct APIs: `RequestThrottledException` for `GetSnapshotBlock`, otherwise `ThrottlingException`
    /// - Recycle Bin: `ThrottlingException`
    /// - SQS: `RequestThrottled`
    Throttle,
    /// An internal error (500): `InternalError`, DynamoDB's `InternalServerError`, SQS's `InternalFailure`, or the
    /// `InternalServerException` of the EBS direct APIs and the Recycle Bin.
    InternalError,
    /// Conflict with another transaction on an item of DynamoDB. `TransactWriteItems` is cancelled, with
    /// `TransactionConflict` as the reason of its last write. Any other call is refused with
    /// `TransactionConflictException` (400).
    TransactionConflict,
    /// The connection closes without an answer, and the call has no effect.
    ResetBefore,
    /// The call takes effect, then the connection closes without an answer.
    ResetAfter,
    /// The call takes effect at once, and the answer is delayed by this time.
    Slow(Duration),
    /// The call takes effect. Only the first half of the answer is sent, then the connection closes.
    CutBody,
    /// The call takes effect. Only this many bytes of the answer are sent, with a matching HTTP length, so that HTTP
    /// does not show the truncation.
    CutShort(usize),
    /// The call takes effect. This many spaces follow the answer.
    Padded(usize),
    /// The call takes effect. One bit in the middle of the answer is wrong, which HTTP does not show. The checksum of a
    /// snapshot's block then does not match.
    FlipBit,
    /// The call takes effect. The answer lacks every XML element or JSON key of this name.
    Without(String),
    /// EC2 answers a list with an empty page, and a token for the next one. A page may have fewer items than requested,
    /// or none (EC2 API reference, "Query requests").
    EmptyPage,
    /// IAM denies the call. All have the status 403, except DynamoDB's.
    ///
    /// - EC2: `UnauthorizedOperation`
    /// - SNS: `AuthorizationError`
    /// - STS: `AccessDenied`
    /// - DynamoDB: `AccessDeniedException` (400)
    /// - EBS direct APIs, Recycle Bin and SQS: `AccessDeniedException`
    AccessDenied,
    /// Any other refusal of the service. The call has no effect. The status is 400, or for the EBS direct APIs and the
    /// Recycle Bin, the one that the code has in their models.
    Refuse {
        /// The error code.
        code: String,
        /// The error message.
        message: String,
    },
}

impl FaultKind {
    /// Whether a call with this disturbance changes the world like an undisturbed one.
    pub fn takes_effect(&self) -> bool {
        match self {
            FaultKind::ResetAfter
            | FaultKind::Slow(_)
            | FaultKind::CutBody
            | FaultKind::CutShort(_)
            | FaultKind::EmptyPage
            | FaultKind::Without(_)
            | FaultKind::Padded(_)
            | FaultKind::FlipBit => true,
            FaultKind::Throttle
            | FaultKind::InternalError
            | FaultKind::TransactionConflict
            | FaultKind::ResetBefore
            | FaultKind::AccessDenied
            | FaultKind::Refuse { .. } => false,
        }
    }
}

/// The calls so far, and the injected faults.
#[derive(Debug, Default)]
pub(crate) struct Log {
    calls: Vec<Call>,
    faults: Vec<(Fault, usize)>,
}

impl Log {
    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub(crate) fn forget_calls(&mut self) {
        self.calls.clear();
    }

    pub(crate) fn inject(&mut self, fault: Fault) {
        self.faults.push((fault, 0));
    }

    pub(crate) fn heal(&mut self) {
        self.faults.clear();
    }

    /// Counts a call of `action` with these parameters, and returns the fault that disturbs it, if any.
    pub(crate) fn fault_for(
        &mut self,
        action: &str,
        params: &BTreeMap<String, String>,
    ) -> Option<FaultKind> {
        let mut found = None;
        for (fault, seen) in &mut self.faults {
            if fault.is_of(action, params) {
                *seen += 1;
                if found.is_none() && fault.calls.include(*seen) {
                    found = Some(fault.kind.clone());
                }
            }
        }
        found
    }

    pub(crate) fn record(&mut self, call: Call) {
        self.calls.push(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_only_calls_of_its_action_after_its_injection() {
        let (mut log, params) = (Log::default(), BTreeMap::new());
        assert_eq!(log.fault_for("DescribeImages", &params), None);
        log.inject(Fault::nth("DescribeImages", 2, FaultKind::Throttle));
        assert_eq!(log.fault_for("CreateTags", &params), None);
        assert_eq!(log.fault_for("DescribeImages", &params), None);
        assert_eq!(
            log.fault_for("DescribeImages", &params),
            Some(FaultKind::Throttle)
        );
        assert_eq!(log.fault_for("DescribeImages", &params), None);
    }

    #[test]
    fn the_fault_injected_first_wins_and_the_others_still_count() {
        let (mut log, params) = (Log::default(), BTreeMap::new());
        log.inject(Fault::nth("Publish", 1, FaultKind::Throttle));
        log.inject(Fault::always("Publish", FaultKind::InternalError));
        log.inject(Fault::nth("Publish", 2, FaultKind::CutBody));
        assert_eq!(log.fault_for("Publish", &params), Some(FaultKind::Throttle));
        assert_eq!(
            log.fault_for("Publish", &params),
            Some(FaultKind::InternalError)
        );
        log.heal();
        assert_eq!(log.fault_for("Publish", &params), None);
    }

    #[test]
    fn a_fault_can_be_of_calls_with_or_without_a_parameter() {
        let mut log = Log::default();
        let slow = FaultKind::Throttle;
        log.inject(Fault::always("DescribeImages", slow.clone()).without("Owner.1", "self"));
        log.inject(Fault::nth("DescribeImages", 1, FaultKind::CutBody).with("Owner.1", "self"));
        let params = |owner: &str| BTreeMap::from([("Owner.1".to_owned(), owner.to_owned())]);
        assert_eq!(
            log.fault_for("DescribeImages", &params("123456789012")),
            Some(slow.clone())
        );
        assert_eq!(
            log.fault_for("DescribeImages", &BTreeMap::new()),
            Some(slow)
        );
        assert_eq!(
            log.fault_for("DescribeImages", &params("self")),
            Some(FaultKind::CutBody)
        );
        assert_eq!(log.fault_for("DescribeImages", &params("self")), None);
    }
}

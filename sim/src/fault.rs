//! The log of calls, and the faults that a test can ask for.

use std::collections::BTreeMap;
use std::time::Duration;

/// Which of the services a call was meant for.
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
    /// The service it was meant for.
    pub service: Service,
    /// The Region that it was signed for; the world's own if it was not signed.
    pub region: String,
    /// The action, such as `DescribeImages`.
    pub action: String,
    /// All form parameters as they came, `ImageId.1` and the like, `Action` and `Version` among them. Of a
    /// call of DynamoDB the JSON document is here as `Body`, and the table as `TableName`; the tables of a
    /// transaction or a batch have commas between them. Of a call of the EBS direct APIs the parameters have their names
    /// of the API reference: `SnapshotId`, `BlockIndex`, `BlockToken`, `NextToken` and so on; and those of a call of the
    /// Recycle Bin: `Identifier`. Of a call of SQS the JSON document is here as `Body` as well, and its members by their
    /// names: `QueueUrl`, `ReceiptHandle`, `VisibilityTimeout`.
    pub params: BTreeMap<String, String>,
    /// What the server did with it.
    pub answer: Answer,
}

impl Call {
    /// The JSON document of a call of DynamoDB or SQS; null for any other call.
    pub fn body(&self) -> serde_json::Value {
        let body = self.params.get("Body").map(String::as_str);
        serde_json::from_str(body.unwrap_or_default()).unwrap_or_default()
    }

    /// The snapshot and the index of the block that a `GetSnapshotBlock` asks for; `None` for any other call.
    pub fn block(&self) -> Option<(&str, u64)> {
        if self.action != "GetSnapshotBlock" {
            return None;
        }
        let index = self.params.get("BlockIndex")?.parse().ok()?;
        Some((self.params.get("SnapshotId")?, index))
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Served.
    Ok,
    /// Refused for a reason that lies in the request or the world, with this error code.
    Refused(String),
    /// Disturbed by an injected fault. Whether it took effect is the kind's to say:
    /// see [`FaultKind::takes_effect`].
    Fault(FaultKind),
}

/// A disturbance of some calls of one action.
///
/// If several faults apply to a call, the one that was injected first wins; all of them count the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The action whose calls are counted and disturbed.
    pub action: String,
    /// Those alone whose parameter of this name has (`true`) or has not (`false`) this value; all if absent.
    pub of: Option<(String, String, bool)>,
    /// Which of them.
    pub calls: Calls,
    /// How.
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

/// Calls of one action, counted from the injection of the fault; 1 is the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// This one alone.
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

/// How a call is disturbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Too many requests: EC2's `RequestLimitExceeded` (503), SNS's and STS's `Throttling` (400), DynamoDB's
    /// `ProvisionedThroughputExceededException` (400), the EBS direct APIs' `RequestThrottledException` for
    /// `GetSnapshotBlock` and else `ThrottlingException` (both 400), the Recycle Bin's `ThrottlingException` (400),
    /// SQS's `RequestThrottled` (400).
    Throttle,
    /// `InternalError`, DynamoDB's `InternalServerError`, SQS's `InternalFailure`, the `InternalServerException` of the EBS
    /// direct APIs and of the Recycle Bin (500).
    InternalError,
    /// A transaction is at work on an item of DynamoDB that the call wants: `TransactWriteItems` is cancelled
    /// with `TransactionConflict` as the reason of its last write, any other call is refused with
    /// `TransactionConflictException` (400).
    TransactionConflict,
    /// The connection is closed without an answer, and nothing was done.
    ResetBefore,
    /// The call takes effect, then the connection is closed without an answer.
    ResetAfter,
    /// The call takes effect at once, and the answer comes this much later.
    Slow(Duration),
    /// The call takes effect; of the answer only the first half comes, then the connection closes.
    CutBody,
    /// The call takes effect; of the answer only so many bytes come, and HTTP does not know that there
    /// were more.
    CutShort(usize),
    /// The call takes effect; so many spaces come after the answer.
    Padded(usize),
    /// The call takes effect; in the middle of the answer one bit is wrong, and HTTP does not know it. The
    /// checksum of a snapshot's block does not fit any more.
    FlipBit,
    /// The call takes effect; the answer comes without this element (of XML) or key (of JSON), wherever it has one of that
    /// name.
    Without(String),
    /// EC2 answers a list with a page that is empty, and a token of the next one. A page may have fewer items than asked
    /// for, or none (EC2 API reference, "Query requests").
    EmptyPage,
    /// IAM says no: EC2's `UnauthorizedOperation`, SNS's `AuthorizationError` or STS's `AccessDenied` (all 403), or
    /// the `AccessDeniedException` of DynamoDB (400), of the EBS direct APIs, of the Recycle Bin or of SQS (all 403).
    AccessDenied,
    /// Any other refusal of the service's (400; of the EBS direct APIs' and of the Recycle Bin's, what the code has in
    /// their models);
    /// nothing was done.
    Refuse {
        /// The error code.
        code: String,
        /// The sentence that comes with it.
        message: String,
    },
}

impl FaultKind {
    /// Whether a call that is disturbed in this way changes the world as if nothing had happened.
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

/// The calls so far, and the faults still to come.
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

    /// Counts a call of `action` with these parameters and says which fault, if any, disturbs it.
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

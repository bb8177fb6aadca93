//! Passes each request to its service, logs the call, and refuses it if a fault requires that.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ec2::EMPTY_PAGE;
use crate::fault::{Answer, Call, FaultKind, Service};
use crate::form::Form;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::state::{State, lock};
use crate::world::World;
use crate::{dynamodb, ebs, ec2, query, rbin, rest_json, sns, sqs, sts};

/// A request in a form common to all services.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) service: Service,
    pub(crate) action: String,
    params: BTreeMap<String, String>,
}

impl Question {
    /// A request whose action is in the query or in its form body.
    pub(crate) fn of_form(query: &str, body: &[u8]) -> Question {
        let params: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .chain(form_urlencoded::parse(body).into_owned())
            .collect();
        Question {
            service: match params.get("Version").map(String::as_str) {
                Some(sns::VERSION) => Service::Sns,
                Some(sts::VERSION) => Service::Sts,
                _ => Service::Ec2,
            },
            action: params.get("Action").cloned().unwrap_or_default(),
            params,
        }
    }

    /// A request to DynamoDB or SQS, whose action is in a header.
    pub(crate) fn of_json(service: Service, action: &str, body: &[u8]) -> Question {
        let body = String::from_utf8_lossy(body).into_owned();
        let mut params = match service {
            Service::Sqs => sqs::params(&body),
            _ => BTreeMap::new(),
        };
        if service == Service::DynamoDb
            && let Some(tables) = dynamodb::table_names(&body)
        {
            params.insert("TableName".to_owned(), tables);
        }
        params.insert("Body".to_owned(), body);
        Question {
            service,
            action: action.to_owned(),
            params,
        }
    }

    /// A request to the EBS direct APIs or the Recycle Bin, whose action follows from its path.
    pub(crate) fn of_path(method: &str, path: &str, query: &str) -> Option<Question> {
        let ebs = ebs::question(method, path, query).map(|question| (Service::Ebs, question));
        let found = ebs.or_else(|| Some((Service::Rbin, rbin::question(method, path)?)));
        let (service, (action, params)) = found?;
        Some(Question {
            service,
            action,
            params,
        })
    }

    fn form(&self) -> Form<'_> {
        Form::new(&self.params)
    }

    /// The body of a request to DynamoDB or SQS.
    fn json(&self) -> &str {
        self.params.get("Body").map_or("", String::as_str)
    }
}

/// The service and the action in the header `X-Amz-Target`.
pub(crate) fn target_of(target: &str) -> Option<(Service, String)> {
    let of = |service, prefix| Some((service, target.strip_prefix(prefix)?.to_owned()));
    of(Service::DynamoDb, dynamodb::TARGET).or_else(|| of(Service::Sqs, sqs::TARGET))
}

/// Result of a call while the world was locked.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Absent if the fault prevents a reply.
    pub(crate) pending: Option<Pending>,
    pub(crate) fault: Option<FaultKind>,
    /// Minimum duration of the call.
    pub(crate) latency: Duration,
}

/// A reply, or the read that produces it.
#[derive(Debug)]
pub(crate) enum Pending {
    Reply(Reply),
    /// The reply to the request of this id requires a read from the disk.
    Reading(String, ebs::Reading),
}

/// Serves one call, and logs it.
///
/// The world stays locked throughout, so that the log has the order of the effects. Only reads from a disk happen
/// later.
pub(crate) fn answer(state: &State, region: Option<String>, mut question: Question) -> Outcome {
    let mut world = lock(&state.world);
    let region = region.unwrap_or_else(|| world.region.clone());
    let world = world.signed_for(&region);
    let fault = lock(&state.log).fault_for(&question.action, &question.params);
    let latency = match question.service {
        Service::Ebs => world.ebs.latency,
        Service::Ec2
        | Service::Sns
        | Service::Sqs
        | Service::Sts
        | Service::DynamoDb
        | Service::Rbin => Duration::ZERO,
    };
    let (pending, answer) = if fault == Some(FaultKind::ResetBefore) {
        (None, Answer::Ok)
    } else {
        let refusal = fault
            .as_ref()
            .and_then(|fault| refusal_of(fault, world, &question))
            .or_else(|| (!world.is_usable()).then(|| not_opted_in(question.service)));
        let number = state.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("00000000-0000-4000-8000-{number:012x}");
        if fault == Some(FaultKind::EmptyPage) {
            question.params.insert(EMPTY_PAGE.into(), String::new());
        }
        let (pending, answer) = serve_or_refuse(world, &question, request_id, refusal);
        question.params.remove(EMPTY_PAGE);
        (Some(pending), answer)
    };
    lock(&state.log).record(Call {
        service: question.service,
        region,
        action: question.action,
        params: question.params,
        answer: match &fault {
            Some(kind) => Answer::Fault(kind.clone()),
            None => answer,
        },
    });
    Outcome {
        pending,
        fault,
        latency,
    }
}

/// The service's refusal, if the fault is a refusal.
fn refusal_of(fault: &FaultKind, world: &World, question: &Question) -> Option<Refusal> {
    let Question {
        service, action, ..
    } = question;
    Some(match (fault, service) {
        (FaultKind::Throttle, Service::Ec2) => ec2::throttled(),
        (FaultKind::Throttle, Service::Sns | Service::Sts) => query::throttled(),
        (FaultKind::Throttle, Service::DynamoDb) => dynamodb::throttled(),
        (FaultKind::Throttle, Service::Ebs) => ebs::throttled(action),
        (FaultKind::Throttle, Service::Rbin) => rbin::throttled(),
        (FaultKind::Throttle, Service::Sqs) => sqs::throttled(),
        (FaultKind::InternalError, Service::DynamoDb) => dynamodb::failed(),
        (FaultKind::InternalError, Service::Sqs) => sqs::failed(),
        // Both services have the same error.
        (FaultKind::InternalError, Service::Ebs | Service::Rbin) => rest_json::failed(),
        (FaultKind::InternalError, _) => {
            Refusal::new("InternalError", "An internal error has occurred").with_status(500)
        }
        (FaultKind::AccessDenied, Service::Ec2) => ec2::denied(world, action, &question.form()),
        (FaultKind::AccessDenied, Service::Sns) => sns::denied(world, action, &question.form()),
        (FaultKind::AccessDenied, Service::Sts) => sts::denied(world, action),
        (FaultKind::AccessDenied, Service::DynamoDb) => {
            dynamodb::denied(world, action, question.json())
        }
        (FaultKind::AccessDenied, Service::Ebs) => ebs::denied(world, action, &question.params),
        (FaultKind::AccessDenied, Service::Rbin) => rbin::denied(world, action, &question.params),
        (FaultKind::AccessDenied, Service::Sqs) => sqs::denied(world, action, &question.params),
        (FaultKind::TransactionConflict, _) => dynamodb::conflicting(action, question.json()),
        (FaultKind::Refuse { code, message }, Service::Ebs | Service::Rbin) => {
            rest_json::refusal(code, message)
        }
        (FaultKind::Refuse { code, message }, _) => Refusal::new(code, message),
        (
            FaultKind::ResetBefore
            | FaultKind::ResetAfter
            | FaultKind::Slow(_)
            | FaultKind::CutBody
            | FaultKind::CutShort(_)
            | FaultKind::EmptyPage
            | FaultKind::Without(_)
            | FaultKind::Padded(_)
            | FaultKind::FlipBit,
            _,
        ) => return None,
    })
}

/// The refusal if the account has not opted in to the Region, which then does not recognise its credentials.
fn not_opted_in(service: Service) -> Refusal {
    let invalid_token = "The security token included in the request is invalid.";
    match service {
        Service::Ec2 => Refusal::new(
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
        .with_status(401),
        Service::Sns | Service::Sts => {
            Refusal::new("InvalidClientTokenId", invalid_token).with_status(403)
        }
        Service::DynamoDb => Refusal::new("UnrecognizedClientException", invalid_token),
        Service::Ebs | Service::Rbin | Service::Sqs => {
            Refusal::new("UnrecognizedClientException", invalid_token).with_status(403)
        }
    }
}

/// The service's reply: the refusal, if there is one, or the result of the call.
fn serve_or_refuse(
    world: &mut World,
    question: &Question,
    request_id: String,
    refusal: Option<Refusal>,
) -> (Pending, Answer) {
    let action = question.action.as_str();
    let (reply, answer) = match question.service {
        Service::Ec2 => {
            let form = question.form();
            ec2::prepare(world, action, &form);
            put_into_words(
                refusal.map_or_else(|| ec2::call(world, action, &form), Err),
                |result| ec2::reply(action, &request_id, result),
            )
        }
        Service::Sns => put_into_words(
            refusal.map_or_else(|| sns::call(world, action, &question.form()), Err),
            |result| query::reply(sns::NAMESPACE, action, &request_id, result),
        ),
        Service::Sts => put_into_words(
            refusal.map_or_else(|| sts::call(world, action, &question.form()), Err),
            |result| query::reply(sts::NAMESPACE, action, &request_id, result),
        ),
        Service::DynamoDb => put_into_words(
            refusal.map_or_else(|| dynamodb::call(world, action, question.json()), Err),
            |result| dynamodb::reply(&request_id, result),
        ),
        Service::Sqs => put_into_words(
            refusal.map_or_else(|| sqs::call(world, action, question.json()), Err),
            |result| sqs::reply(&request_id, result),
        ),
        Service::Rbin => put_into_words(
            refusal.map_or_else(|| rbin::call(world, action, &question.params), Err),
            |result| rbin::reply(&request_id, result),
        ),
        Service::Ebs => {
            return put_into_words(
                refusal.map_or_else(|| ebs::call(world, action, &question.params), Err),
                |result| match result {
                    Ok(reading) => Pending::Reading(request_id, reading),
                    Err(refusal) => Pending::Reply(rest_json::refused(&request_id, refusal)),
                },
            );
        }
    };
    (Pending::Reply(reply), answer)
}

fn put_into_words<T, R>(
    result: Result<T, Refusal>,
    reply: impl FnOnce(Result<T, Refusal>) -> R,
) -> (R, Answer) {
    let answer = match &result {
        Ok(_) => Answer::Ok,
        Err(refusal) => Answer::Refused(refusal.code.clone()),
    };
    (reply(result), answer)
}

//! Records requests and answers in a file, so that they can be compared with AWS's own API models.
//!
//! With the environment variable `SIM_RECORD=FILE`, every process that serves appends to that file. It writes one line
//! of JSON for each request and answer that have anything new in them. A large test run writes a few megabytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::env;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use hyper::Request;
use hyper::header::HeaderMap;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Value as Json, json};

use crate::fault::Service;
use crate::reply::Reply;

/// Environment variable with the path of the file.
const VARIABLE: &str = "SIM_RECORD";

/// Headers with information about the call or its caller.
const HEADERS: [&str; 3] = ["content-type", "user-agent", "x-amz-target"];

/// Maximum number of kinds of value that are recorded for one parameter or element.
const KINDS_OF_A_VALUE: usize = 48;

/// Maximum number of different sets of parameters and elements that are recorded for one action.
const SHAPES_OF_AN_ACTION: usize = 200;

/// Length in bytes above which an answer is recorded once for each set of parameters, without a look at its elements.
/// Such an answer is a page of a large account.
const LONG: usize = 16 << 10;

static RECORDER: LazyLock<Option<Mutex<Recorder>>> = LazyLock::new(|| {
    let path = env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
    // The reader of the recording then finds no file, and the reason on standard error.
    match OpenOptions::new().append(true).create(true).open(&path) {
        Ok(file) => Some(Mutex::new(Recorder::new(file))),
        Err(error) => {
            eprintln!(
                "sim: {VARIABLE}: {} can not be written: {error}",
                path.display()
            );
            None
        }
    }
});

/// The head of a request that may be recorded.
#[derive(Debug)]
pub(crate) struct Heard {
    method: String,
    uri: String,
    headers: serde_json::Map<String, Json>,
}

impl Heard {
    /// The head of a request, or `None` if nothing is recorded.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Heard> {
        RECORDER.as_ref()?;
        Some(Heard {
            method: request.method().to_string(),
            uri: request.uri().to_string(),
            headers: recorded(request.headers()),
        })
    }

    /// Records the request and the answer, unless everything in them was recorded before. `reply` is the service's
    /// answer, before a fault disturbs it. `fault` tells whether there was one.
    pub(crate) fn record(
        self,
        service: Service,
        action: &str,
        body: &Bytes,
        fault: bool,
        reply: Option<&Reply>,
    ) {
        if let Some(recorder) = RECORDER.as_ref() {
            let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            recorder.record(&self, service, action, body, fault, reply);
        }
    }
}

fn recorded(headers: &HeaderMap) -> serde_json::Map<String, Json> {
    let present = HEADERS.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.into()))
    });
    present.collect()
}

/// Keeps track of what was recorded, to avoid duplicates.
#[derive(Debug)]
struct Recorder {
    file: File,
    /// Digests of the examined requests and answers. Most are repeated and differ only in ids and times.
    digests: HashSet<u64>,
    /// Kinds of value by place, and sets of places by action.
    seen: HashSet<(u64, u64)>,
    /// Number of entries for each.
    counts: HashMap<u64, usize>,
}

impl Recorder {
    fn new(file: File) -> Recorder {
        Recorder {
            file,
            digests: HashSet::new(),
            seen: HashSet::new(),
            counts: HashMap::new(),
        }
    }

    fn record(
        &mut self,
        heard: &Heard,
        service: Service,
        action: &str,
        body: &Bytes,
        fault: bool,
        reply: Option<&Reply>,
    ) {
        let heads = [name_of(service), action, &heard.uri];
        let pieces = heads.iter().map(|head| head.as_bytes());
        let said = reply.map(|reply| reply.body.as_ref()).unwrap_or_default();
        let status = reply.map(|reply| reply.status);
        let pieces = pieces.chain([body.as_ref(), said]);
        if !self.digests.insert(hash(&(digest(pieces), status, fault))) {
            return;
        }
        let mut values = values_of_request(&heard.uri, &heard.headers, body);
        values.insert(("caller".to_owned(), caller(&heard.headers)));
        if let Some(reply) = reply {
            values.insert(("status".to_owned(), reply.status.to_string()));
            values.extend(values_of_answer(reply));
        }
        if !self.is_news(service, action, &values) {
            return;
        }
        let answer = reply.map(|reply| {
            let text = std::str::from_utf8(&reply.body);
            let headers = reply.headers.iter().map(|(name, value)| {
                let value = Json::String(value.clone());
                ((*name).to_owned(), value)
            });
            let mut headers: serde_json::Map<String, Json> = headers.collect();
            headers.insert("content-type".to_owned(), reply.content_type.into());
            json!({
                "status": reply.status,
                "headers": headers,
                // Only the number of a block's bytes is recorded.
                "body": text.ok().filter(|_| reply.content_type != "application/octet-stream"),
                "bytes": reply.body.len(),
            })
        });
        let line = json!({
            "service": name_of(service),
            "action": action,
            "method": heard.method,
            "uri": heard.uri,
            "headers": heard.headers,
            "body": String::from_utf8_lossy(body),
            "fault": fault,
            "answer": answer,
        });
        // In a single write, because other processes may write to the file.
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            eprintln!("sim: {VARIABLE}: {error}");
        }
    }

    /// Whether a value is of a new kind for its place, or the set of places is new.
    fn is_news(
        &mut self,
        service: Service,
        action: &str,
        values: &BTreeSet<(String, String)>,
    ) -> bool {
        let mut news = false;
        for (place, kind) in values {
            let place = hash(&(service, action, place));
            news |= self.add(place, hash(kind), KINDS_OF_A_VALUE);
        }
        let places: BTreeSet<&str> = values.iter().map(|(place, _)| place.as_str()).collect();
        let shapes = hash(&(service, action));
        self.add(shapes, hash(&places), SHAPES_OF_AN_ACTION) || news
    }

    /// Whether the entry is new and within the first `most`.
    fn add(&mut self, place: u64, kind: u64, most: usize) -> bool {
        if self.seen.contains(&(place, kind)) {
            return false;
        }
        let count = self.counts.entry(place).or_default();
        if *count == most {
            return false;
        }
        *count += 1;
        self.seen.insert((place, kind))
    }
}

/// A digest that ignores the digits of ids and times. It covers only the first [`LONG`] bytes of each piece.
fn digest<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for piece in pieces {
        for byte in piece.iter().take(LONG) {
            let byte = match byte {
                b'0'..=b'9' | b'a'..=b'f' => b'0',
                other => *other,
            };
            // FNV-1a.
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        digest = digest.rotate_left(1);
    }
    digest
}

fn hash<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Names of the services in botocore's models.
fn name_of(service: Service) -> &'static str {
    match service {
        Service::Ec2 => "ec2",
        Service::Sns => "sns",
        Service::Sts => "sts",
        Service::DynamoDb => "dynamodb",
        Service::Ebs => "ebs",
        Service::Rbin => "rbin",
        Service::Sqs => "sqs",
    }
}

/// The application that makes a call, as an SDK names it; empty without an SDK.
fn caller(headers: &serde_json::Map<String, Json>) -> String {
    let agent = headers.get("user-agent").and_then(Json::as_str);
    let words = agent.unwrap_or_default().split(' ');
    let name = words.into_iter().find(|word| word.starts_with("app/"));
    name.unwrap_or_default().to_owned()
}

/// The parameters of a request, each with the kind of its value.
fn values_of_request(
    uri: &str,
    headers: &serde_json::Map<String, Json>,
    body: &[u8],
) -> BTreeSet<(String, String)> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut values = BTreeSet::from([("path".to_owned(), kind_of(path))]);
    if headers.contains_key("x-amz-target") {
        let document = serde_json::from_slice(body).unwrap_or_default();
        of_json("request".to_owned(), &document, &mut values);
        return values;
    }
    let form = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body));
    for (name, value) in form {
        let parts = name.split('.').filter(|part| part.parse::<u32>().is_err());
        let place = parts.collect::<Vec<_>>().join(".");
        values.insert((format!("request.{place}"), kind_of(&value)));
    }
    values
}

/// The elements of an answer, each with the kind of its value.
fn values_of_answer(reply: &Reply) -> BTreeSet<(String, String)> {
    let mut values = BTreeSet::new();
    for (name, value) in &reply.headers {
        values.insert((format!("header.{name}"), kind_of(value)));
    }
    if reply.body.len() > LONG {
        return values;
    }
    if reply.content_type.starts_with("text/xml") {
        of_xml(&reply.body, &mut values);
    } else if let Ok(document) = serde_json::from_slice(&reply.body) {
        of_json("answer".to_owned(), &document, &mut values);
    }
    values
}

fn of_json(place: String, document: &Json, values: &mut BTreeSet<(String, String)>) {
    match document {
        Json::Array(items) => {
            for item in items {
                of_json(format!("{place}[]"), item, values);
            }
        }
        Json::Object(members) => {
            for (name, value) in members {
                of_json(format!("{place}.{name}"), value, values);
            }
        }
        Json::String(text) => drop(values.insert((place, kind_of(text)))),
        // 1, true, null: of another type than the same value as a text.
        other => drop(values.insert((place, format!("={}", kind_of(&other.to_string()))))),
    }
}

fn of_xml(document: &[u8], values: &mut BTreeSet<(String, String)>) {
    let mut reader = Reader::from_reader(document);
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(element)) => {
                path.push(element.name().as_ref().to_owned());
                text.clear();
            }
            Ok(Event::Text(piece)) => text.push_str(&piece),
            Ok(Event::End(_)) => {
                values.insert((path.join("/"), kind_of(&text)));
                path.pop();
                text.clear();
            }
            Ok(Event::Eof) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// The kind of a value. A short word is a kind of its own, because it may belong to an enumeration. A number's kind is
/// its number of digits, and the kind of any other text is its approximate length.
fn kind_of(value: &str) -> String {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("{} digits", value.len());
    }
    let is_word = |c: char| c.is_ascii_alphabetic() || "-_.:/ *".contains(c);
    if value.len() <= 40 && value.chars().all(is_word) {
        return value.to_owned();
    }
    format!("text of {} bits' length", value.len().ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> BTreeSet<(String, String)> {
        values_of_request("/", &serde_json::Map::new(), body.as_bytes())
    }

    #[test]
    fn an_answer_is_news_while_anything_in_it_is() {
        let directory = env::temp_dir().join(format!("sim-recording-{}", std::process::id()));
        let file = File::create(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let mut recorder = Recorder::new(file);
        let mut news = |body: &str| recorder.is_news(Service::Ec2, "DescribeImages", &of(body));
        assert!(news("ImageId.1=ami-0123456789abcdef0"));
        assert!(!news("ImageId.1=ami-0123456789abcdef1"));
        // Another index in a list is not another parameter.
        assert!(!news(
            "ImageId.1=ami-0123456789abcdef0&ImageId.2=ami-0123456789abcdef1"
        ));
        assert!(news("ImageId.1="));
        assert!(news("ImageId.1=ami-0123456789abcdef0&Owner.1=self"));
        assert!(!news("ImageId.1=ami-0123456789abcdef0&Owner.1=self"));
        assert!(news("ImageId.1=ami-0123456789abcdef0&Owner.1=amazon"));
    }

    #[test]
    fn elements_are_found_wherever_they_are() {
        let mut values = BTreeSet::new();
        of_xml(b"<a><b><item><c>1</c></item></b><d/></a>", &mut values);
        let places: Vec<&str> = values.iter().map(|(place, _)| place.as_str()).collect();
        assert!(places.contains(&"a/b/item/c"), "{places:?}");
        let document = json!({"Item": {"id": {"S": "x"}}, "L": [{"N": 1}]});
        values.clear();
        of_json("answer".to_owned(), &document, &mut values);
        let expected = [("answer.Item.id.S", "x"), ("answer.L[].N", "=1 digits")];
        assert_eq!(values, expected.map(|(a, b)| (a.into(), b.into())).into());
    }
}

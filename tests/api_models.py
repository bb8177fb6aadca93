"""What goes over the wire to AWS and back, compared with AWS's own API models, those of botocore.

Read from the raw bytes, as a service reads them: what the models do not know, or know otherwise, is a fault. Neither
the SDK of the guard nor the servers of the tests have a part in it.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

# "Common errors" of the services' API references, which no model has.
COMMON_ERRORS = {
    "AccessDeniedException",
    "IncompleteSignature",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InvalidParameterValueException",
    "MissingAuthenticationToken",
    "RequestEntityTooLarge",
    "SerializationException",
    "ServiceUnavailable",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
}

# What a JSON document calls the sentence of an error, whatever the model says.
SENTENCE = {"message", "Message"}

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

WHOLE = re.compile(r"-?\d+")

RANGES = {"integer": 2**31, "long": 2**63}


@cache
def service(name: str) -> ServiceModel:
    """A service's model, as botocore ships it."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


@dataclass
class Call:
    """A request, and the answer if there was one."""

    service: str
    action: str
    method: str
    uri: str
    headers: dict[str, str]
    body: str
    # Disturbed by a test: it may have been told to answer anything.
    fault: bool = False
    answer: dict[str, Any] | None = None

    def by(self, application: str) -> bool:
        """Whether the SDK of this application made it."""
        return f"app/{application}" in self.headers.get("user-agent", "").split()


@dataclass
class Check:
    """Compares calls with the models; counts what it looked at, and keeps the faults it found."""

    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    answers: int = 0
    # Each once, without the numbers of its lists.
    parameters: set[tuple[str, str, str]] = field(default_factory=set)
    elements: set[tuple[str, str, str]] = field(default_factory=set)
    errors: set[tuple[str, str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._call = ("", "")
        self._seen: set[tuple[str, str, str]] = self.parameters

    def __str__(self) -> str:
        asked = f"{self.requests} requests with {len(self.parameters)} parameters"
        said = f"{self.answers} answers with {len(self.elements)} elements and {len(self.errors)} errors"
        return " and ".join(text for text, count in ((asked, self.requests), (said, self.answers)) if count)

    # Requests.

    def request(self, call: Call) -> None:
        """Compares a request."""
        self._call, self._seen = (call.service, call.action), self.parameters
        self.requests += 1
        operation = self.operation(call)
        if operation is None:
            return self.fault("", "no such action")
        protocol = service(call.service).protocol
        shape = operation.input_shape
        if protocol in ("ec2", "query"):
            self.form(call, operation, protocol)
        elif protocol == "json":
            self.json_request(call, operation)
        elif protocol == "rest-json":
            self.rest_request(call, operation, shape)
        else:
            raise NotImplementedError(protocol)

    @staticmethod
    def operation(call: Call) -> OperationModel | None:
        """The model of an action, if there is such an action."""
        model = service(call.service)
        return model.operation_model(call.action) if call.action in model.operation_names else None

    def form(self, call: Call, operation: OperationModel, protocol: str) -> None:
        pairs = parse_qsl(call.body, keep_blank_values=True) + query(call.uri)
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                self.fault(name, "is there twice")
        params = dict(pairs)
        if params.pop("Action", None) != operation.name:
            self.fault("Action", "is another one")
        if params.pop("Version", None) != service(call.service).api_version:
            self.fault("Version", "is another one")
        if not call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            self.fault("", "is no form")
        tree: dict[str, Any] = {}
        for name, value in params.items():
            *above, last = name.split(".")
            node = tree
            for part in above:
                node = node.setdefault(part, {}) if isinstance(node, dict) else {}
            if not isinstance(node, dict) or isinstance(node.get(last), dict):
                self.fault(name, "is a value and a structure at once")
            else:
                node[last] = value
        self.form_value("", operation.input_shape, tree, protocol)

    def form_value(self, place: str, shape: Shape | None, value: Any, protocol: str) -> None:
        """A parameter of a form, or all that begin with its name."""
        if place:
            self.saw(place)
        if isinstance(shape, StructureShape) or shape is None:
            if not isinstance(value, dict):
                return self.fault(place, "is a value, and has to be a structure")
            members = shape.members if shape is not None else {}
            by_name = {form_name(name, member, protocol): (name, member) for name, member in members.items()}
            for name, below in value.items():
                if name not in by_name:
                    self.fault(f"{place}.{name}".strip("."), "is not in the model")
                else:
                    self.form_value(f"{place}.{name}".strip("."), by_name[name][1], below, protocol)
            if shape is not None:
                names = {by_name[name][0] for name in value if name in by_name}
                self.members(place, shape, names)
        elif isinstance(shape, ListShape):
            between = "" if protocol == "ec2" or shape.serialization.get("flattened") else list_member(shape)
            for item in self.items(place, value, between):
                self.form_value(place, shape.member, item, protocol)
            self.bounds(place, shape, len(value) if not between else len(value.get(between, {})))
        elif isinstance(shape, MapShape):
            between = "" if shape.serialization.get("flattened") else "entry"
            key, content = (part.serialization.get("name", default) for part, default in
                            ((shape.key, "key"), (shape.value, "value")))
            for item in self.items(place, value, between):
                if not isinstance(item, dict) or item.keys() != {key, content}:
                    self.fault(place, f"has to have {key} and {content}")
                    continue
                self.text(f"{place}.{key}", shape.key, item[key])
                self.form_value(f"{place}.{content}", shape.value, item[content], protocol)
        else:
            self.text(place, shape, value)

    def items(self, place: str, value: Any, between: str) -> Iterator[Any]:
        """The members of a list, which have to be numbered from 1 on."""
        if between and isinstance(value, dict) and value.keys() == {between}:
            value = value[between]
        elif between:
            return self.fault(place, f"is a list without {between}")
        if not isinstance(value, dict):
            return self.fault(place, "is a value, and has to be a list")
        if value.keys() != {str(number) for number in range(1, len(value) + 1)}:
            return self.fault(place, "is not numbered from 1 on")
        yield from value.values()

    def json_request(self, call: Call, operation: OperationModel) -> None:
        model = service(call.service)
        version = model.metadata["jsonVersion"]
        if call.headers.get("content-type") != f"application/x-amz-json-{version}":
            self.fault("", f"is not JSON of version {version}")
        # CloudTrail's has a Java package before it, which other SDKs than botocore leave out.
        prefix = model.metadata["targetPrefix"]
        if call.headers.get("x-amz-target") not in {f"{it}.{operation.name}" for it in (prefix, prefix.split(".")[-1])}:
            self.fault("", "has another target")
        if (call.method, call.uri) != ("POST", "/"):
            self.fault("", "is no POST to /")
        self.document("", operation.input_shape, parsed(call.body))

    def rest_request(self, call: Call, operation: OperationModel, shape: StructureShape) -> None:
        method, template = operation.http["method"], operation.http["requestUri"]
        path = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template))
        found = re.fullmatch(path, urlsplit(call.uri).path)
        if method != call.method or found is None:
            return self.fault("", f"is no {method} {template}")
        given = dict(query(call.uri))
        document = parsed(call.body) if call.body else {}
        present = set()
        for name, member in shape.members.items():
            wire, location = member.serialization.get("name", name), member.serialization.get("location")
            if location == "uri":
                value = unquote(found[wire])
            elif location == "querystring":
                value = given.pop(wire, None)
            elif location in ("header", "headers"):
                # The recording has few headers, and no action that is called here takes any.
                value = None
            else:
                value = document.pop(wire, None)
                if value is not None:
                    self.document(name, member, value)
                    present.add(name)
                continue
            if value is not None:
                present.add(name)
                self.saw(name)
                self.text(name, member, value)
        for name in [*given, *document]:
            self.fault(name, "is not in the model")
        self.members("", shape, present)

    # Answers.

    def answer(self, call: Call) -> None:
        """Compares an answer."""
        if call.answer is None:
            return
        self._call, self._seen = (call.service, call.action), self.elements
        self.answers += 1
        operation = self.operation(call)
        protocol = service(call.service).protocol
        status, body = call.answer["status"], call.answer["body"]
        if status != 200:
            if protocol in ("ec2", "query"):
                self.xml_error(call, protocol, status, body)
            else:
                self.json_error(call, operation, status, body)
        elif operation is None:
            self.fault("", "no such action, and yet an answer")
        elif protocol in ("ec2", "query"):
            self.xml(call, operation, protocol, body)
        elif protocol == "json":
            # An action that returns nothing answers without a body.
            if body or operation.output_shape is not None:
                self.document("", operation.output_shape, parsed(body))
        else:
            self.rest_answer(call, operation.output_shape)

    def xml(self, call: Call, operation: OperationModel, protocol: str, body: str) -> None:
        root = ElementTree.fromstring(body)
        namespace, name = split(root.tag)
        if name != f"{operation.name}Response":
            self.fault(name, "is not the answer to it")
        # EC2 ends it with a slash, which its model has not.
        expected = service(call.service).metadata["xmlNamespace"]
        if namespace.rstrip("/") != expected.rstrip("/"):
            self.fault(name, f"is not in {expected}")
        shape = operation.output_shape
        elements = list(root)
        if protocol == "ec2":
            ids = [element for element in elements if split(element.tag)[1] == "requestId"]
            elements = [element for element in elements if element not in ids]
            if len(ids) != 1:
                self.fault("requestId", "has to be there once")
            # What the API reference has of every action that has nothing else to tell.
            if shape is None:
                if [(split(it.tag)[1], it.text) for it in elements] not in ([], [("return", "true")]):
                    self.fault("", "has more than return")
                return
        else:
            wrapper = shape.serialization.get("resultWrapper") if shape is not None else None
            wrapper = wrapper or f"{operation.name}Result"
            by_name = {split(element.tag)[1]: element for element in elements}
            if by_name.keys() != {wrapper, "ResponseMetadata"} or len(elements) != 2:
                self.fault("", f"has to be {wrapper} and ResponseMetadata")
                return
            if [split(it.tag)[1] for it in by_name["ResponseMetadata"]] != ["RequestId"]:
                self.fault("ResponseMetadata", "has to be RequestId")
            elements = list(by_name[wrapper])
        self.structure("", shape, elements)

    def structure(self, place: str, shape: StructureShape | None, elements: list[ElementTree.Element]) -> None:
        by_name = {}
        flattened = set()
        for name, member in (shape.members if shape is not None else {}).items():
            wire = member.serialization.get("name", name)
            if isinstance(member, ListShape) and member.serialization.get("flattened"):
                wire = member.member.serialization.get("name", wire)
                flattened.add(wire)
            by_name[wire] = (name, member)
        counts = Counter(split(element.tag)[1] for element in elements)
        for element in elements:
            name = split(element.tag)[1]
            here = f"{place}.{name}".strip(".")
            if name not in by_name:
                self.fault(here, "is not in the model")
            elif name in flattened:
                self.saw(here)
                self.element(here, by_name[name][1].member, element)
            else:
                if counts[name] > 1:
                    self.fault(here, "is there twice")
                self.element(here, by_name[name][1], element)
        if shape is not None:
            self.members(place, shape, {by_name[name][0] for name in counts if name in by_name})

    def element(self, place: str, shape: Shape, element: ElementTree.Element) -> None:
        self.saw(place)
        if len(element) and (element.text or "").strip():
            self.fault(place, "has text between its elements")
        if isinstance(shape, StructureShape):
            self.structure(place, shape, list(element))
        elif isinstance(shape, ListShape):
            name = shape.member.serialization.get("name", "member")
            for item in element:
                if split(item.tag)[1] != name:
                    self.fault(f"{place}.{split(item.tag)[1]}", f"has to be {name}")
                else:
                    self.element(f"{place}.{name}", shape.member, item)
        elif isinstance(shape, MapShape):
            key, content = (part.serialization.get("name", default) for part, default in
                            ((shape.key, "key"), (shape.value, "value")))
            for entry in element:
                parts = {split(part.tag)[1]: part for part in entry}
                if split(entry.tag)[1] != "entry" or parts.keys() != {key, content}:
                    self.fault(place, f"has to have entries of {key} and {content}")
                else:
                    self.element(f"{place}.{key}", shape.key, parts[key])
                    self.element(f"{place}.{content}", shape.value, parts[content])
        elif len(element):
            self.fault(place, "has elements, and has to be a value")
        else:
            self.text(place, shape, element.text or "")

    def rest_answer(self, call: Call, shape: StructureShape) -> None:
        headers, body = call.answer["headers"], call.answer["body"]
        payload = shape.serialization.get("payload")
        present = set()
        expected = {"content-type", "content-length", "x-amzn-requestid"}
        document = parsed(body) if payload is None else {}
        for name, member in shape.members.items():
            wire, location = member.serialization.get("name", name), member.serialization.get("location")
            if location == "header":
                expected.add(wire.lower())
                if wire.lower() in headers:
                    present.add(name)
                    self.saw(name)
                    self.text(name, member, headers[wire.lower()])
            elif name == payload:
                present.add(name)
                self.saw(name)
                self.blob(call, name)
            elif wire in document:
                present.add(name)
                self.document(name, member, document.pop(wire))
        for name in [*document, *(headers.keys() - expected)]:
            self.fault(name, "is not in the model")
        self.members("", shape, present)

    def blob(self, call: Call, name: str) -> None:
        """Bytes, which the recording only counts."""
        headers = call.answer["headers"]
        if headers["content-type"] != "application/octet-stream":
            self.fault(name, "is not of bytes")
        if headers.get("x-amz-data-length") != str(call.answer["bytes"]):
            self.fault(name, "is not as long as it is said to be")

    def xml_error(self, call: Call, protocol: str, status: int, body: str) -> None:
        root = ElementTree.fromstring(body)
        tree = {split(element.tag)[1]: [split(it.tag)[1] for it in element] for element in root}
        request_id = "RequestID" if protocol == "ec2" else "RequestId"
        expected = {"Errors" if protocol == "ec2" else "Error", request_id}
        if split(root.tag)[1] != ("Response" if protocol == "ec2" else "ErrorResponse") or tree.keys() != expected:
            return self.fault("", f"an error has to be of {' and '.join(sorted(expected))}")
        [error] = [it for it in root.iter() if split(it.tag)[1] == "Error"]
        parts = {split(it.tag)[1]: it.text or "" for it in error}
        if parts.keys() != ({"Code", "Message"} if protocol == "ec2" else {"Type", "Code", "Message"}):
            self.fault("Error", "has to have code and message, and SNS's and STS's a type")
        self.error(call, parts.get("Code", ""), status)

    def json_error(self, call: Call, operation: OperationModel | None, status: int, body: str) -> None:
        document = parsed(body)
        if service(call.service).protocol == "json":
            code = document.pop("__type", "").rpartition("#")[2]
        else:
            code = call.answer["headers"].get("x-amzn-errortype", "")
        shape = self.error(call, code, status)
        sentences = [document.pop(name) for name in SENTENCE & document.keys()]
        if any(not isinstance(sentence, str) for sentence in sentences) or len(sentences) > 1:
            self.fault(code, "has to have one sentence at most")
        # A denial of IAM's own comes before the service, and has nothing but a sentence.
        if shape is None or (not document and "is not authorized to perform" in "".join(sentences)):
            for name in document:
                self.fault(f"{code}.{name}", "is not in the model")
        else:
            self.document(code, shape, document)
        possible = {error.name for error in operation.error_shapes} if operation is not None else set()
        if code not in possible | COMMON_ERRORS and not call.fault:
            self.fault(code, "is no error of this action")

    def error(self, call: Call, code: str, status: int) -> Shape | None:
        """The model of an error, if it has one; EC2's has no errors at all."""
        self.errors.add((*self._call, code))
        if not code:
            self.fault("", "an error has to have a code")
        for shape in service(call.service).error_shapes:
            said = shape.metadata.get("error", {})
            if code == said.get("code", shape.name) and not (call.fault and status == 400):
                if status != said.get("httpStatusCode", status):
                    self.fault(code, f"has the status {status}, and has to have {said['httpStatusCode']}")
                return shape
        if not 400 <= status <= 599:
            self.fault(code, f"has the status {status}")
        return service(call.service).shape_for(code) if code in service(call.service).shape_names else None

    # Values.

    def document(self, place: str, shape: Shape | None, value: Any) -> None:
        """A JSON document, or a part of one."""
        if place:
            self.saw(place)
        if isinstance(shape, StructureShape) or shape is None:
            if not isinstance(value, dict):
                return self.fault(place, "has to be an object")
            members = shape.members if shape is not None else {}
            by_name = {member.serialization.get("name", name): (name, member) for name, member in members.items()}
            for name, below in value.items():
                if name not in by_name:
                    self.fault(f"{place}.{name}".strip("."), "is not in the model")
                else:
                    self.document(f"{place}.{name}".strip("."), by_name[name][1], below)
            if shape is None:
                return
            self.members(place, shape, {by_name[name][0] for name in value if name in by_name})
            # A union, which the model does not say.
            if shape.name == "AttributeValue" and len(value) != 1:
                self.fault(place, "has to have one type")
        elif isinstance(shape, ListShape):
            if not isinstance(value, list):
                return self.fault(place, "has to be a list")
            self.bounds(place, shape, len(value))
            for item in value:
                self.document(f"{place}[]", shape.member, item)
        elif isinstance(shape, MapShape):
            if not isinstance(value, dict):
                return self.fault(place, "has to be an object")
            self.bounds(place, shape, len(value))
            for key, below in value.items():
                self.text(f"{place}.KEY", shape.key, key)
                self.document(f"{place}.*", shape.value, below)
        elif shape.type_name == "boolean":
            if not isinstance(value, bool):
                self.fault(place, f"is {value!r}, and has to be a boolean")
        elif shape.type_name in ("integer", "long", "float", "double", "timestamp"):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                self.fault(place, f"is {value!r}, and has to be a number")
            elif shape.type_name in RANGES:
                self.text(place, shape, str(value))
        elif not isinstance(value, str):
            self.fault(place, f"is {value!r}, and has to be a text")
        else:
            self.text(place, shape, value)

    def text(self, place: str, shape: Shape, value: Any) -> None:
        """A value as it is written in a form, an XML document, a path, a query or a header."""
        kind = shape.type_name
        if not isinstance(value, str):
            return self.fault(place, "is a structure, and has to be a value")
        if kind in RANGES:
            if not WHOLE.fullmatch(value) or not -RANGES[kind] <= int(value) < RANGES[kind]:
                return self.fault(place, f"is {value!r}, and has to be of type {kind}")
            self.bounds(place, shape, int(value))
        elif kind in ("float", "double"):
            try:
                self.bounds(place, shape, float(value))
            except ValueError:
                self.fault(place, f"is {value!r}, and has to be a number")
        elif kind == "boolean":
            if value not in ("true", "false"):
                self.fault(place, f"is {value!r}, and has to be true or false")
        elif kind == "timestamp":
            if not TIME.fullmatch(value):
                self.fault(place, f"is {value!r}, and has to be a time")
        elif kind == "blob":
            try:
                self.bounds(place, shape, len(b64decode(value, validate=True)))
            except ValueError:
                self.fault(place, "is not in base 64")
        elif kind in ("string", "character"):
            self.bounds(place, shape, len(value))
            allowed = shape.metadata.get("enum")
            if allowed and value not in allowed:
                self.fault(place, f"is {value!r}, and has to be one of {', '.join(allowed[:8])}")
            pattern = shape.metadata.get("pattern")
            if pattern and not re.search(as_python(pattern), value):
                self.fault(place, f"is {value!r}, and has to match {pattern}")
        else:
            self.fault(place, f"is a value, and has to be a {kind}")

    def members(self, place: str, shape: StructureShape, present: set[str]) -> None:
        for name in set(shape.required_members) - present:
            self.fault(f"{place}.{name}".strip("."), "is missing")
        if shape.metadata.get("union") and len(present) != 1:
            self.fault(place, "has to have one member")

    def bounds(self, place: str, shape: Shape, size: float) -> None:
        """Of a number its value, of anything else its length."""
        # The services answer with lists that are empty, whatever the models say: DynamoDB with UnprocessedKeys.
        if self._seen is self.elements and size == 0 and isinstance(shape, ListShape | MapShape):
            return
        least, most = shape.metadata.get("min", -math.inf), shape.metadata.get("max", math.inf)
        if not least <= size <= most:
            self.fault(place, f"is of {size}, and has to be from {least} to {most}")

    def saw(self, place: str) -> None:
        self._seen.add((*self._call, place))

    def fault(self, place: str, what: str) -> None:
        self.faults[": ".join(part for part in (".".join(self._call), place, what) if part)] += 1


def form_name(name: str, shape: Shape, protocol: str) -> str:
    """What a member is called in a form."""
    if protocol != "ec2":
        return shape.serialization.get("name", name)
    if "queryName" in shape.serialization:
        return shape.serialization["queryName"]
    wire = shape.serialization.get("name", name)
    return wire[:1].upper() + wire[1:]


def list_member(shape: ListShape) -> str:
    """What is between the name of a list and the number in a form of SNS or STS."""
    return shape.member.serialization.get("name", "member")


def as_python(pattern: str) -> str:
    """A pattern of the models, which are Java's."""
    pattern = re.sub(r"\\p\{[^}]*\}", r"\\w", pattern)
    # Java repeats what is repeated already, `[a]{2}{0,3}`; Python wants a group for that.
    return re.sub(r"(\[[^]]*\]\{\d+\})(?=\{)", r"(?:\1)", pattern)


def split(tag: str) -> tuple[str, str]:
    """The namespace and the name of an element."""
    namespace, _, name = tag.rpartition("}")
    return namespace.removeprefix("{"), name


def query(uri: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(uri).query, keep_blank_values=True)


def parsed(body: str) -> Any:
    """A JSON document; None, which is none of anything, if it is not one."""
    try:
        return json.loads(body)
    except ValueError:
        return None

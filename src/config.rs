//! Environment → [`Config`] and [`Policy`]. The error about a wrong setting names the variable, the value and what is
//! accepted.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use crate::event::Scope;
use crate::policy::{LARGEST_POLICY, Policy, PolicyError};

/// Whether the guard discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It discards.
    Enforce,
    /// It judges and alerts, and changes nothing.
    Observe,
}

impl Mode {
    /// The word for it in settings.
    pub fn word(&self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        }
    }
}

/// Settings of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `GUARD_MODE`. Defaults to `observe`.
    pub mode: Mode,
    /// `GUARD_ALERT_TOPIC_ARN`. Required in the function. The command line may do without it, and then discards
    /// nothing.
    pub alert_topic: Option<String>,
    /// `GUARD_CHAT_TOPIC_ARN`: the topic for chat applications, which receives alerts in their own format.
    pub chat_topic: Option<String>,
    /// `GUARD_POLICY_PATH`: the policy file. Defaults to the built-in policy.
    pub policy_path: Option<String>,
    /// `GUARD_ACCOUNT_ID` and `AWS_REGION`.
    pub scope: Scope,
    /// `GUARD_WAIT_SECONDS`: how long one event may wait in total for AWS to show the current state.
    pub wait: Duration,
    /// `GUARD_LEDGER_TABLE`: the DynamoDB table of the ledger. Without one, the ledger is held in memory.
    pub ledger_table: Option<String>,
    /// `GUARD_LEDGER_DAYS`: how long the ledger's table keeps an image after its last event.
    pub ledger_days: u32,
    /// `GUARD_SETTLE_SECONDS`: how old an image must be before a verdict counts. `exempt`, and `verified` by a
    /// declaration, count at any age.
    pub settle: Duration,
    /// `GUARD_RECYCLE_BIN_RULE`: the id of the retention rule that keeps deregistered images. Without one, the guard
    /// checks no rule.
    pub recycle_bin_rule: Option<String>,
    /// `GUARD_QUEUE_URL`: the event queue, in which the message of a young image is hidden until the image has settled.
    /// Without one, the message returns after the queue's own visibility timeout.
    pub queue_url: Option<String>,
    /// `GUARD_RUNBOOK_URL`: the URL of the runbook, to which alerts link, or its file name, which they show.
    pub runbook_url: Option<String>,
}

/// Why the function does not start.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A required setting is missing.
    #[error("{variable} is not set. Accepted: {accepted}")]
    Missing {
        /// The environment variable.
        variable: &'static str,
        /// What is accepted.
        accepted: &'static str,
    },
    /// The value of a setting is not accepted.
    #[error("{variable} is {value:?}. Accepted: {accepted}")]
    Unaccepted {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        accepted: &'static str,
    },
    /// A setting is not UTF-8.
    #[error("{variable} is {value:?}, which is not UTF-8. Accepted: UTF-8 text")]
    NotUtf8 {
        /// The environment variable.
        variable: String,
        /// Its value.
        value: OsString,
    },
    /// An endpoint of the AWS SDK is not a URL.
    #[error(
        "{variable} is {value:?}. Accepted: an http:// or https:// URL with a host, such as http://localhost:4566. \
         Unset it to use AWS's own endpoint"
    )]
    Endpoint {
        /// The environment variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// An endpoint in the AWS SDK's configuration file is not a URL.
    #[error(
        "endpoint_url in the AWS configuration file is {value:?} for {service}. Accepted: an http:// or https:// URL \
         with a host, such as http://localhost:4566. Remove it to use AWS's own endpoint"
    )]
    EndpointInFile {
        /// Id of a service to which it applies.
        service: &'static str,
        /// Its value.
        value: String,
    },
    /// The ledger would forget a discard while the image could still be discarded again.
    #[error(
        "GUARD_LEDGER_DAYS is \"{days}\", and the policy's discard.max_age_hours is {hours}. Accepted: at least as \
         long. Otherwise the guard forgets a discard, and could discard an image again that you restored"
    )]
    ForgetsTooSoon {
        /// `GUARD_LEDGER_DAYS`.
        days: u32,
        /// The policy's `discard.max_age_hours`.
        hours: u32,
    },
    /// Every image would be too old for a discard before it has settled.
    #[error(
        "GUARD_SETTLE_SECONDS is \"{seconds}\", and the policy's discard.max_age_hours is {hours}. Accepted: a shorter \
         time. Otherwise every image is too old when the guard judges it, and none is ever discarded"
    )]
    SettlesTooLate {
        /// `GUARD_SETTLE_SECONDS`.
        seconds: u64,
        /// The policy's `discard.max_age_hours`.
        hours: u32,
    },
    /// The policy file cannot be read.
    #[error(
        "GUARD_POLICY_PATH is {path:?}, which cannot be read: {error}. Accepted: the path of a policy file"
    )]
    UnreadablePolicy {
        /// Its path.
        path: String,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// The policy file is not a policy.
    #[error("GUARD_POLICY_PATH names a policy that is not accepted:\n{0}")]
    Policy(#[from] PolicyError),
}

/// What is accepted as a topic.
const TOPIC_ARN: &str = "the ARN of an SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME)";

/// Default of [`Config::ledger_days`], in days.
const DEFAULT_LEDGER_DAYS: u32 = 365;

/// Default of [`Config::settle`], in seconds.
const DEFAULT_SETTLE_SECONDS: u64 = 300;

impl Config {
    /// Reads the settings. `variable` returns the value of an environment variable.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting that is missing, not accepted or not UTF-8.
    pub fn read<V: Into<OsString>>(
        variable: impl Fn(&str) -> Option<V>,
    ) -> Result<Config, ConfigError> {
        let variable = |name: &str| text(name, variable(name));
        let mode = match variable("GUARD_MODE")?.as_deref() {
            None | Some("observe") => Mode::Observe,
            Some("enforce") => Mode::Enforce,
            Some(other) => {
                return Err(ConfigError::Unaccepted {
                    variable: "GUARD_MODE",
                    value: other.to_owned(),
                    accepted: "`enforce` or `observe`",
                });
            }
        };
        let alert_topic = topic("GUARD_ALERT_TOPIC_ARN", variable("GUARD_ALERT_TOPIC_ARN")?)?;
        let alert_topic = alert_topic.ok_or(ConfigError::Missing {
            variable: "GUARD_ALERT_TOPIC_ARN",
            accepted: TOPIC_ARN,
        })?;
        let chat_topic = topic("GUARD_CHAT_TOPIC_ARN", variable("GUARD_CHAT_TOPIC_ARN")?)?;
        if chat_topic.as_ref() == Some(&alert_topic) {
            return Err(ConfigError::Unaccepted {
                variable: "GUARD_CHAT_TOPIC_ARN",
                value: alert_topic,
                accepted: "a topic other than GUARD_ALERT_TOPIC_ARN, because chat messages have a format of their own, \
                           which would also arrive as mails",
            });
        }
        let account = match variable("GUARD_ACCOUNT_ID")? {
            None => None,
            Some(value) => Some(value.parse().map_err(|_| ConfigError::Unaccepted {
                variable: "GUARD_ACCOUNT_ID",
                value,
                accepted: "an account id of twelve digits",
            })?),
        };
        let ledger_table = table_name(variable("GUARD_LEDGER_TABLE")?)?;
        let ledger_days = match variable("GUARD_LEDGER_DAYS")? {
            None => DEFAULT_LEDGER_DAYS,
            Some(value) => match value.parse() {
                Ok(days @ 1..=3650) => days,
                _ => {
                    return Err(ConfigError::Unaccepted {
                        variable: "GUARD_LEDGER_DAYS",
                        value,
                        accepted: "whole days from 1 to 3650",
                    });
                }
            },
        };
        let recycle_bin_rule = rule_id(variable("GUARD_RECYCLE_BIN_RULE")?)?;
        let queue_url = checked(
            "GUARD_QUEUE_URL",
            variable("GUARD_QUEUE_URL")?,
            is_url,
            "an https:// or http:// URL of an SQS queue, such as https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
        )?;
        let runbook_url = checked(
            "GUARD_RUNBOOK_URL",
            variable("GUARD_RUNBOOK_URL")?,
            is_runbook,
            "the URL or the file name of the runbook: at most 500 characters, without spaces and `#`",
        )?;
        let seconds = |name: &'static str, default: u64, accepted: &'static str, most: u64| {
            let Some(value) = variable(name)? else {
                return Ok(Duration::from_secs(default));
            };
            match value.parse() {
                Ok(seconds) if seconds <= most => Ok(Duration::from_secs(seconds)),
                _ => Err(ConfigError::Unaccepted {
                    variable: name,
                    value,
                    accepted,
                }),
            }
        };
        Ok(Config {
            mode,
            alert_topic: Some(alert_topic),
            chat_topic,
            policy_path: variable("GUARD_POLICY_PATH")?,
            scope: Scope {
                account,
                region: variable("AWS_REGION")?,
            },
            ledger_table,
            ledger_days,
            // The queue takes care of longer waits.
            wait: seconds("GUARD_WAIT_SECONDS", 5, "whole seconds from 0 to 30", 30)?,
            // Packer tags an image after it has copied it to all Regions, which can take more than half an hour.
            settle: seconds(
                "GUARD_SETTLE_SECONDS",
                DEFAULT_SETTLE_SECONDS,
                "whole seconds from 0 to 7200",
                7200,
            )?,
            recycle_bin_rule,
            queue_url,
            runbook_url,
        })
    }

    /// Settings of the command line, which shows what the guard would do in enforce mode. Checks topic, table and rule
    /// like [`Config::read`], but does not require a topic. The other settings have the function's defaults.
    ///
    /// # Errors
    /// [`ConfigError::Unaccepted`] for a topic, table or rule that is not accepted. An empty text is not accepted.
    pub fn for_command_line(
        alert_topic: Option<String>,
        ledger_table: Option<String>,
        recycle_bin_rule: Option<String>,
        wait: Duration,
    ) -> Result<Config, ConfigError> {
        Ok(Config {
            mode: Mode::Enforce,
            alert_topic: topic("GUARD_ALERT_TOPIC_ARN", alert_topic)?,
            chat_topic: None,
            policy_path: None,
            scope: Scope::default(),
            wait,
            ledger_table: table_name(ledger_table)?,
            ledger_days: DEFAULT_LEDGER_DAYS,
            settle: Duration::from_secs(DEFAULT_SETTLE_SECONDS),
            recycle_bin_rule: rule_id(recycle_bin_rule)?,
            queue_url: None,
            runbook_url: None,
        })
    }

    /// ARN of the alert topic. Empty if there is none.
    pub(crate) fn topic(&self) -> &str {
        self.alert_topic.as_deref().unwrap_or_default()
    }
}

/// Value of an environment variable. `None` if it is not set or empty.
///
/// # Errors
/// [`ConfigError`] if it is not UTF-8.
pub(crate) fn text(
    name: &str,
    value: Option<impl Into<OsString>>,
) -> Result<Option<String>, ConfigError> {
    match value.map(|value| value.into().into_string()) {
        None => Ok(None),
        // A template passes a parameter that was left empty as an empty string.
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        // This is not the same as unset. The guard would run with another policy, or without a ledger.
        Some(Err(value)) => Err(ConfigError::NotUtf8 {
            variable: name.to_owned(),
            value,
        }),
    }
}

/// Checks a value, if there is one.
fn checked(
    variable: &'static str,
    value: Option<String>,
    fits: fn(&str) -> bool,
    accepted: &'static str,
) -> Result<Option<String>, ConfigError> {
    match value {
        Some(value) if !fits(&value) => Err(ConfigError::Unaccepted {
            variable,
            value,
            accepted,
        }),
        value => Ok(value),
    }
}

/// Checks that a value, if there is one, is the ARN of a topic.
fn topic(variable: &'static str, value: Option<String>) -> Result<Option<String>, ConfigError> {
    checked(variable, value, is_topic_arn, TOPIC_ARN)
}

/// Checks that a value, if there is one, is the name of a DynamoDB table.
fn table_name(value: Option<String>) -> Result<Option<String>, ConfigError> {
    let accepted = "the name of a DynamoDB table: 3 to 255 letters, digits, `_`, `-` and `.`";
    checked("GUARD_LEDGER_TABLE", value, is_table_name, accepted)
}

/// Checks that a value, if there is one, is the id of a retention rule.
fn rule_id(value: Option<String>) -> Result<Option<String>, ConfigError> {
    let accepted = "the id of a Recycle Bin retention rule: 11 letters and digits";
    checked("GUARD_RECYCLE_BIN_RULE", value, is_rule_id, accepted)
}

/// Whether a text has the shape of a topic's ARN.
fn is_topic_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    matches!(parts.as_slice(), ["arn", _, "sns", _, _, name] if !name.is_empty())
}

/// Whether a text can be the URL or the file name of the runbook. Alerts add a section to it.
fn is_runbook(text: &str) -> bool {
    text.len() <= 500 && text.bytes().all(|it| it.is_ascii_graphic() && it != b'#')
}

/// Whether a text can be the name of a DynamoDB table (DynamoDB Developer Guide, "Naming rules").
fn is_table_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (3..=255).contains(&name.len()) && name.bytes().all(fits)
}

/// Whether a text can be the id of a retention rule (Recycle Bin API reference, "GetRule").
fn is_rule_id(id: &str) -> bool {
    id.len() == 11 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a text begins like the URL of a service. SQS itself says whether it is a queue's.
pub(crate) fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let begins = rest.bytes().next();
        let host = begins.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'[');
        host && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

/// Prefix of the variables that set endpoints for the AWS SDK. `AWS_ENDPOINT_URL` is for all services, and names such
/// as `AWS_ENDPOINT_URL_EC2` are for one.
const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// Checks the variables of the AWS SDK and of Lambda. The SDK panics at an empty endpoint. It ignores a value that is
/// not UTF-8, at which Lambda's runtime panics.
///
/// # Errors
/// [`ConfigError`] for a value that is not UTF-8, and for an endpoint that is not a URL.
pub(crate) fn check_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("AWS_")) else {
            continue;
        };
        let variable = name.to_owned();
        match value.into_string() {
            Ok(value) if name.starts_with(ENDPOINT) && !is_url(&value) => {
                return Err(ConfigError::Endpoint { variable, value });
            }
            Ok(_) => {}
            Err(value) => return Err(ConfigError::NotUtf8 { variable, value }),
        }
    }
    Ok(())
}

/// Checks that settings and policy fit together.
///
/// # Errors
/// - [`ConfigError::ForgetsTooSoon`] if the ledger would forget an image that could still be discarded.
/// - [`ConfigError::SettlesTooLate`] if an image would be too old for a discard before it has settled.
pub fn check(config: &Config, policy: &Policy) -> Result<(), ConfigError> {
    let days = config.ledger_days;
    if config.ledger_table.is_some() && u64::from(days) * 24 < u64::from(policy.max_age_hours) {
        let hours = policy.max_age_hours;
        return Err(ConfigError::ForgetsTooSoon { days, hours });
    }
    let (seconds, hours) = (config.settle.as_secs(), policy.max_age_hours);
    if seconds >= u64::from(hours) * 3600 {
        return Err(ConfigError::SettlesTooLate { seconds, hours });
    }
    Ok(())
}

/// Reads the policy that `GUARD_POLICY_PATH` names. Returns the built-in policy if it names none.
///
/// # Errors
/// [`ConfigError`] if the file cannot be read, or has any fault.
pub fn read_policy(config: &Config) -> Result<Policy, ConfigError> {
    let Some(path) = &config.policy_path else {
        return Ok(Policy::default());
    };
    match read_file(path.as_ref(), LARGEST_POLICY) {
        Ok(text) => Ok(Policy::parse(path, &text)?),
        Err(error) => Err(ConfigError::UnreadablePolicy {
            path: path.clone(),
            error,
        }),
    }
}

/// Reads a text file that a person names, of at most `most` bytes.
///
/// # Errors
/// Why it cannot be read. [`io::ErrorKind::InvalidInput`] if it is not a regular file, because a FIFO may never have a
/// writer and a device may have no end.
pub fn read_file(path: &Path, most: usize) -> io::Result<String> {
    // Checked before the file is opened, because opening a FIFO waits until another program writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a folder, a FIFO or a device, not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    // Reads one byte more, to detect a file that is too large.
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let file = std::fs::File::open(path)?;
    file.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!(
            "it has more than {most} bytes, which is the limit"
        )));
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: (&str, &str) = (
        "GUARD_ALERT_TOPIC_ARN",
        "arn:aws:sns:eu-west-1:123456789012:alerts",
    );

    const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/events";

    fn read(settings: &[(&str, &str)]) -> Result<Config, String> {
        Config::read(|name| {
            settings
                .iter()
                .find(|setting| setting.0 == name)
                .map(|setting| setting.1.to_owned())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let config = read(&[TOPIC]).unwrap();
        assert_eq!(config.mode, Mode::Observe);
        assert_eq!(config.wait, Duration::from_secs(5));
        assert_eq!(config.settle, Duration::from_secs(300));
        assert_eq!(config.scope, Scope::default());
        assert_eq!(
            (&config.recycle_bin_rule, &config.queue_url),
            (&None, &None)
        );
        assert_eq!(
            (config.ledger_table.as_ref(), config.ledger_days),
            (None, 365)
        );
        assert_eq!(
            read(&[
                TOPIC,
                ("GUARD_MODE", ""),
                ("GUARD_ACCOUNT_ID", ""),
                ("GUARD_RECYCLE_BIN_RULE", ""),
                ("GUARD_QUEUE_URL", ""),
            ])
            .unwrap(),
            config
        );
    }

    #[test]
    fn every_setting_is_read() {
        let config = read(&[
            TOPIC,
            ("GUARD_MODE", "enforce"),
            ("GUARD_ACCOUNT_ID", "123456789012"),
            ("AWS_REGION", "eu-west-1"),
            ("GUARD_WAIT_SECONDS", "0"),
            ("GUARD_SETTLE_SECONDS", "7200"),
            ("GUARD_LEDGER_TABLE", "guard-ledger"),
            ("GUARD_LEDGER_DAYS", "90"),
            ("GUARD_RECYCLE_BIN_RULE", "JSzDHyLPHm0"),
            ("GUARD_QUEUE_URL", QUEUE),
        ])
        .unwrap();
        assert_eq!(config.mode, Mode::Enforce);
        assert_eq!(config.scope.account.unwrap().as_str(), "123456789012");
        assert_eq!(config.scope.region.as_deref(), Some("eu-west-1"));
        assert_eq!(
            (config.wait, config.settle),
            (Duration::ZERO, Duration::from_secs(7200))
        );
        assert_eq!(config.ledger_table.as_deref(), Some("guard-ledger"));
        assert_eq!(config.ledger_days, 90);
        assert_eq!(config.recycle_bin_rule.as_deref(), Some("JSzDHyLPHm0"));
        assert_eq!(config.queue_url.as_deref(), Some(QUEUE));
    }

    #[test]
    fn the_command_line_has_the_defaults_of_the_function_and_needs_no_topic() {
        let function = read(&[
            TOPIC,
            ("GUARD_MODE", "enforce"),
            ("GUARD_LEDGER_TABLE", "guard-ledger"),
            ("GUARD_RECYCLE_BIN_RULE", "JSzDHyLPHm0"),
        ])
        .unwrap();
        let config = Config::for_command_line(
            Some(TOPIC.1.into()),
            Some("guard-ledger".into()),
            Some("JSzDHyLPHm0".into()),
            function.wait,
        );
        assert_eq!(config.unwrap(), function);
        let config = Config::for_command_line(None, None, None, Duration::from_secs(60));
        assert_eq!(
            config.unwrap(),
            Config {
                alert_topic: None,
                ledger_table: None,
                recycle_bin_rule: None,
                wait: Duration::from_secs(60),
                ..function
            }
        );
    }

    #[test]
    fn the_command_line_has_the_checks_of_the_function() {
        let wrong = || Some("a b".to_owned());
        for (variable, topic, ledger, rule) in [
            ("GUARD_ALERT_TOPIC_ARN", wrong(), None, None),
            ("GUARD_LEDGER_TABLE", None, wrong(), None),
            ("GUARD_RECYCLE_BIN_RULE", None, None, wrong()),
        ] {
            let error = Config::for_command_line(topic, ledger, rule, Duration::ZERO).unwrap_err();
            let function = read(&[(variable, "a b"), TOPIC]);
            assert_eq!(error.to_string(), function.unwrap_err());
        }
    }

    #[test]
    fn a_wrong_setting_names_variable_value_and_what_is_accepted() {
        let cases = [
            (
                vec![],
                "GUARD_ALERT_TOPIC_ARN is not set. Accepted: the ARN of an SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME)",
            ),
            (
                vec![("GUARD_ALERT_TOPIC_ARN", "alerts")],
                "GUARD_ALERT_TOPIC_ARN is \"alerts\". Accepted: the ARN of an SNS topic \
                 (arn:aws:sns:REGION:ACCOUNT:NAME)",
            ),
            (
                vec![TOPIC, ("GUARD_MODE", "Enforce")],
                "GUARD_MODE is \"Enforce\". Accepted: `enforce` or `observe`",
            ),
            (
                vec![TOPIC, ("GUARD_ACCOUNT_ID", "12345")],
                "GUARD_ACCOUNT_ID is \"12345\". Accepted: an account id of twelve digits",
            ),
            (
                vec![TOPIC, ("GUARD_WAIT_SECONDS", "5s")],
                "GUARD_WAIT_SECONDS is \"5s\". Accepted: whole seconds from 0 to 30",
            ),
            (
                vec![TOPIC, ("GUARD_LEDGER_TABLE", "a table")],
                "GUARD_LEDGER_TABLE is \"a table\". Accepted: the name of a DynamoDB table: 3 to 255 letters, digits, \
                 `_`, `-` and `.`",
            ),
            (
                vec![TOPIC, ("GUARD_LEDGER_DAYS", "0")],
                "GUARD_LEDGER_DAYS is \"0\". Accepted: whole days from 1 to 3650",
            ),
            (
                vec![
                    TOPIC,
                    (
                        "GUARD_RECYCLE_BIN_RULE",
                        "arn:aws:rbin:eu-west-1:123456789012:rule/JSzDHyLPHm0",
                    ),
                ],
                "GUARD_RECYCLE_BIN_RULE is \"arn:aws:rbin:eu-west-1:123456789012:rule/JSzDHyLPHm0\". Accepted: the id \
                 of a Recycle Bin retention rule: 11 letters and digits",
            ),
            (
                vec![TOPIC, ("GUARD_SETTLE_SECONDS", "7201")],
                "GUARD_SETTLE_SECONDS is \"7201\". Accepted: whole seconds from 0 to 7200",
            ),
            (
                vec![
                    TOPIC,
                    (
                        "GUARD_QUEUE_URL",
                        "arn:aws:sqs:eu-west-1:123456789012:events",
                    ),
                ],
                "GUARD_QUEUE_URL is \"arn:aws:sqs:eu-west-1:123456789012:events\". Accepted: an https:// or http:// \
                 URL of an SQS queue, such as https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            ),
            (
                vec![TOPIC, ("GUARD_QUEUE_URL", "https://")],
                "GUARD_QUEUE_URL is \"https://\". Accepted: an https:// or http:// URL of an SQS queue, such as \
                 https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            ),
        ];
        for (settings, words) in cases {
            assert_eq!(read(&settings).unwrap_err(), words);
        }
    }

    #[cfg(unix)]
    #[test]
    fn regression_a_variable_that_is_not_utf_8_is_not_one_that_is_not_set() {
        use std::os::unix::ffi::OsStringExt;
        let names = [
            "GUARD_MODE",
            "GUARD_ALERT_TOPIC_ARN",
            "GUARD_CHAT_TOPIC_ARN",
            "GUARD_POLICY_PATH",
            "GUARD_ACCOUNT_ID",
            "GUARD_WAIT_SECONDS",
            "GUARD_SETTLE_SECONDS",
            "GUARD_LEDGER_TABLE",
            "GUARD_LEDGER_DAYS",
            "GUARD_RECYCLE_BIN_RULE",
            "GUARD_QUEUE_URL",
            "AWS_REGION",
        ];
        for broken in names {
            let error = Config::read(|name| match name {
                name if name == broken => Some(OsString::from_vec(b"a\xFFb".to_vec())),
                "GUARD_ALERT_TOPIC_ARN" => Some(TOPIC.1.into()),
                _ => None,
            });
            assert_eq!(
                error.unwrap_err().to_string(),
                format!("{broken} is \"a\\xFFb\", which is not UTF-8. Accepted: UTF-8 text")
            );
        }
    }

    #[test]
    fn regression_an_endpoint_that_is_empty_or_no_url_is_an_error_that_names_it() {
        let check = |name: &str, value: &str| {
            let variables = [("PATH", ""), (name, value)];
            let variables = variables.map(|(name, value)| (name.into(), value.into()));
            check_variables(variables.into_iter()).map_err(|error| error.to_string())
        };
        for name in [
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_EC2",
            "AWS_ENDPOINT_URL_DYNAMODB",
        ] {
            for wrong in [
                "",
                " ",
                "localhost:4566",
                "http://",
                "https:///x",
                "http://a b",
                "http://:80",
            ] {
                assert_eq!(
                    check(name, wrong).unwrap_err(),
                    format!(
                        "{name} is {wrong:?}. Accepted: an http:// or https:// URL with a host, such as \
                         http://localhost:4566. Unset it to use AWS's own endpoint"
                    )
                );
            }
            for right in [
                "http://127.0.0.1:4566",
                "https://ec2.eu-west-1.amazonaws.com/",
            ] {
                assert_eq!(check(name, right), Ok(()));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn regression_a_policy_path_that_is_no_regular_file_is_refused_at_once() {
        let config = Config {
            policy_path: Some("/dev/zero".into()),
            ..read(&[TOPIC]).unwrap()
        };
        let error = read_policy(&config).unwrap_err().to_string();
        let words = "GUARD_POLICY_PATH is \"/dev/zero\", which cannot be read: it is a folder, a FIFO or a device, not \
                     a regular file";
        assert!(error.starts_with(words), "{error}");

        let fifo = std::env::temp_dir().join(format!("policy-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let error = read_file(&fifo, LARGEST_POLICY).unwrap_err();
        std::fs::remove_file(&fifo).unwrap();
        assert!(error.to_string().contains("a FIFO"), "{error}");
    }

    #[test]
    fn a_ledger_that_forgets_before_an_image_is_too_old_is_refused() {
        let policy = Policy {
            max_age_hours: 25,
            ..Policy::default()
        };
        let days = |days| {
            let settings = [
                TOPIC,
                ("GUARD_LEDGER_TABLE", "ledger"),
                ("GUARD_LEDGER_DAYS", days),
            ];
            check(&read(&settings).unwrap(), &policy).map_err(|error| error.to_string())
        };
        let words = "GUARD_LEDGER_DAYS is \"1\", and the policy's discard.max_age_hours is 25. Accepted: at least as \
                     long";
        assert!(days("1").unwrap_err().starts_with(words));
        assert_eq!(days("2"), Ok(()));
        // A ledger in memory ends with the process, whatever the number of days.
        assert!(
            check(
                &read(&[TOPIC, ("GUARD_LEDGER_DAYS", "1")]).unwrap(),
                &policy
            )
            .is_ok()
        );
    }

    #[test]
    fn an_image_that_would_be_too_old_before_it_has_settled_is_refused() {
        let check = |seconds: &str, max_age_hours: u32| {
            let policy = Policy {
                max_age_hours,
                ..Policy::default()
            };
            let config = read(&[TOPIC, ("GUARD_SETTLE_SECONDS", seconds)]).unwrap();
            check(&config, &policy).map_err(|error| error.to_string())
        };
        for (seconds, hours) in [("7200", 2), ("7200", 1), ("3600", 1), ("0", 0)] {
            let words = format!(
                "GUARD_SETTLE_SECONDS is \"{seconds}\", and the policy's discard.max_age_hours is {hours}. Accepted: a \
                 shorter time"
            );
            let error = check(seconds, hours).unwrap_err();
            assert!(error.starts_with(&words), "{error}");
        }
        for (seconds, hours) in [("7199", 2), ("7200", 3), ("0", 1)] {
            assert_eq!(check(seconds, hours), Ok(()), "{seconds} {hours}");
        }
    }

    #[test]
    fn a_policy_that_is_not_there_is_an_error_and_no_path_is_the_built_in_policy() {
        let read_policy = |path: &str| {
            let config = Config::read(|name| match name {
                "GUARD_ALERT_TOPIC_ARN" => Some(TOPIC.1.to_owned()),
                "GUARD_POLICY_PATH" => Some(path.to_owned()),
                _ => None,
            });
            read_policy(&config.unwrap())
        };
        let error = read_policy("/nowhere/policy.toml").unwrap_err();
        let words = "GUARD_POLICY_PATH is \"/nowhere/policy.toml\", which cannot be read";
        assert!(error.to_string().starts_with(words), "{error}");
        assert_eq!(read_policy("").unwrap(), Policy::default());
    }
}

//! The account whose AMIs are examined, and the guard that judges them.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ami_billing_guard::config::{self, Config};
use ami_billing_guard::event::Scope;
use ami_billing_guard::ids::AccountId;
use ami_billing_guard::policy::{DiscardAction, Policy};
use ami_billing_guard::{Aws, Guard};
use clap::Args;
use disk::contained::Reader;

use crate::confirm;
use crate::outcome::CliError;

/// Whose credentials, and where.
#[derive(Args)]
pub(crate) struct Credentials {
    /// The Region; by default that of the profile or of AWS_REGION
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// The profile of the AWS configuration to use
    #[arg(long)]
    pub(crate) profile: Option<String>,
}

impl Credentials {
    /// Creates clients for the Region.
    pub(crate) async fn connect(&self) -> Result<Aws, CliError> {
        let aws = Aws::connect_as(self.profile.as_deref(), self.region.as_deref())
            .await
            .map_err(|error| CliError::Usage(error.to_string()))?;
        match aws.region() {
            Some(_) => Ok(aws),
            None => Err(CliError::Unknown(
                "no Region is set. Pass --region, or set AWS_REGION".into(),
            )),
        }
    }
}

/// By what the guard judges.
#[derive(Args)]
pub(crate) struct GuardArgs {
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// The policy file; by default the built-in policy
    #[arg(
        long,
        value_name = "FILE",
        env = "GUARD_POLICY_PATH",
        hide_env_values = true
    )]
    policy: Option<OsString>,
    /// The guard's alert topic. With it, a discard is held if the topic has no confirmed subscription
    #[arg(
        long,
        value_name = "ARN",
        env = "GUARD_ALERT_TOPIC_ARN",
        hide_env_values = true
    )]
    topic: Option<String>,
    /// The guard's ledger. With it, a discard is held if the AMI was discarded before
    #[arg(
        long,
        value_name = "TABLE",
        env = "GUARD_LEDGER_TABLE",
        hide_env_values = true
    )]
    ledger: Option<String>,
    /// The Recycle Bin rule that keeps what the guard discards. With it, a discard is held while the rule is not active
    #[arg(
        long,
        value_name = "ID",
        env = "GUARD_RECYCLE_BIN_RULE",
        hide_env_values = true
    )]
    recycle_bin_rule: Option<String>,
}

/// A guard connected to an account.
pub(crate) struct Session {
    pub(crate) guard: Arc<Guard>,
    pub(crate) aws: Aws,
    pub(crate) account: AccountId,
    pub(crate) policy: Policy,
}

impl Session {
    /// Has a person type the account's id before anything is discarded. `what` says what is judged.
    ///
    /// # Errors
    /// [`CliError::Usage`], if the person types something else.
    pub(crate) fn confirm_enforcing(&self, what: &str) -> Result<(), CliError> {
        let (account, most) = (&self.account, self.policy.max_per_hour);
        let then = match self.policy.action {
            DiscardAction::None => {
                "The policy has discard.action = \"none\", so it sends alerts and discards nothing"
                    .to_owned()
            }
            action => format!(
                "It will {} the AMIs that the policy lets the guard discard: at most {most} in an hour, each after an \
                 alert",
                action.name()
            ),
        };
        let question = format!(
            "--enforce judges {what} in account {account}.\n{then}.\nTo continue, type the account's id:"
        );
        match confirm::ask(&question)? {
            typed if typed == account.as_str() => Ok(()),
            _ => Err(CliError::Usage(format!(
                "that is not {account}. Nothing was judged"
            ))),
        }
    }

    /// The account and Region whose events the guard handles.
    pub(crate) fn scope(&self) -> Scope {
        Scope {
            account: Some(self.account.clone()),
            region: self.aws.region().map(str::to_owned),
        }
    }
}

impl GuardArgs {
    /// The guard's settings. `wait` is how long to wait for an AMI to become visible.
    fn config(&self, wait: Duration) -> Result<Config, CliError> {
        Config::for_command_line(self.topic(), self.ledger(), self.recycle_bin_rule(), wait)
            .map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The topic. Here and below, an empty variable counts as unset, as for the function.
    fn topic(&self) -> Option<String> {
        self.topic.clone().filter(|arn| !arn.is_empty())
    }

    fn ledger(&self) -> Option<String> {
        self.ledger.clone().filter(|name| !name.is_empty())
    }

    fn recycle_bin_rule(&self) -> Option<String> {
        self.recycle_bin_rule.clone().filter(|id| !id.is_empty())
    }

    fn policy(&self) -> Option<&Path> {
        let path = self.policy.as_deref();
        path.filter(|path| !path.is_empty()).map(Path::new)
    }

    /// The policy's name, as shown to people.
    pub(crate) fn policy_name(&self) -> String {
        match self.policy() {
            Some(path) => path.display().to_string(),
            None => "built-in".into(),
        }
    }

    /// Checks that discards are possible, and that they can be confirmed. The topic carries the alert, which must
    /// precede a discard. The ledger prevents a second discard, and counts discards for the hourly limit.
    pub(crate) fn may_enforce(&self, yes: bool) -> Result<(), CliError> {
        match (self.topic(), self.ledger()) {
            (Some(_), Some(_)) if yes || confirm::at_terminal() => Ok(()),
            (Some(_), Some(_)) => Err(CliError::Usage(
                "--enforce asks for the account's id, and there is no terminal to ask on. Nothing was judged. In a \
                 script, add --yes"
                    .into(),
            )),
            _ => Err(CliError::Usage(
                "--enforce needs the --topic and the --ledger of the deployed guard. It discards nothing without an \
                 alert, and its ledger counts the hourly limit"
                    .into(),
            )),
        }
    }

    /// Reads the policy and connects to the account.
    pub(crate) async fn begin(&self, wait: Duration) -> Result<Session, CliError> {
        let config = self.config(wait)?;
        let policy = match self.policy() {
            Some(path) => read_policy(path)?,
            None => Policy::default(),
        };
        let aws = self.credentials.connect().await?;
        let account = aws.account().await?;
        self.session(config, policy, aws, account)
    }

    fn session(
        &self,
        mut config: Config,
        policy: Policy,
        aws: Aws,
        account: AccountId,
    ) -> Result<Session, CliError> {
        config.scope = Scope {
            account: Some(account.clone()),
            region: aws.region().map(str::to_owned),
        };
        let guard = Guard::new(config, policy.clone(), aws.clone(), reader()?, |_, _| {});
        Ok(Session {
            guard: Arc::new(guard),
            aws,
            account,
            policy,
        })
    }

    /// The same session in another Region.
    pub(crate) fn elsewhere(&self, session: &Session, region: &str) -> Result<Session, CliError> {
        let config = self.config(Duration::ZERO)?;
        let aws = session.aws.in_region(region);
        self.session(config, session.policy.clone(), aws, session.account.clone())
    }
}

/// Reads a policy file.
///
/// # Errors
/// [`CliError::Usage`], with every fault of the policy, or if the file cannot be read.
pub(crate) fn read_policy(path: &Path) -> Result<Policy, CliError> {
    Policy::parse(&path.display().to_string(), &read(path)?)
        .map_err(|error| CliError::Usage(error.to_string()))
}

/// Maximum size of a text file, in bytes. The limit for a policy is lower, and the policy parser reports it.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Reads a text file that the command line names.
pub(crate) fn read(path: &Path) -> Result<String, CliError> {
    config::read_file(path, MOST_BYTES).map_err(|error| {
        let name = path.display().to_string();
        let instead = match error.kind() {
            ErrorKind::InvalidInput => {
                ". Save the output of a command in a file first, and name that file"
            }
            _ => "",
        };
        CliError::Usage(format!("{name:?} cannot be read: {error}{instead}"))
    })
}

/// The reader of disks: this program, as a child process.
///
/// # Errors
/// [`CliError::Unknown`], if the path of this program cannot be determined.
pub(crate) fn reader() -> Result<Reader, CliError> {
    let program = std::env::current_exe().map_err(|error| {
        CliError::Unknown(format!("the program cannot find its own file: {error}"))
    })?;
    Ok(Reader::Child(program))
}

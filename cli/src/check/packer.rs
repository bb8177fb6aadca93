//! Packer's manifest: which AMIs the last run built. Packer's manifest post-processor adds every build to the file, and
//! `last_run_uuid` says which builds belong to the last run. (Packer documentation, "manifest post-processor".)

use std::path::Path;

use serde::Deserialize;

use super::target::Target;
use crate::account::read;
use crate::outcome::CliError;

/// The members that matter.
#[derive(Deserialize)]
struct Manifest {
    /// `null` in a manifest without builds.
    builds: Option<Vec<Build>>,
    last_run_uuid: String,
}

#[derive(Deserialize)]
struct Build {
    #[serde(default)]
    name: String,
    builder_type: String,
    /// Depends on the builder. For AMIs: `eu-west-1:ami-…,us-east-1:ami-…`.
    artifact_id: String,
    packer_run_uuid: String,
}

impl Build {
    /// Whether the builder makes AMIs. Of the builders of Packer's Amazon plugin, one makes volumes instead.
    fn makes_amis(&self) -> bool {
        self.builder_type.starts_with("amazon-") && self.builder_type != "amazon-ebsvolume"
    }

    fn amis(&self) -> Result<Vec<Target>, String> {
        let ami = |part: &str| {
            let target: Target = part.parse()?;
            match target.region {
                Some(_) => Ok(target),
                None => Err(format!("{part:?} names no Region")),
            }
        };
        self.artifact_id.split(',').map(ami).collect()
    }
}

/// The result of Packer's last run.
#[derive(Debug, PartialEq)]
pub(super) struct LastRun {
    /// The AMIs that it built.
    pub(super) amis: Vec<Target>,
    /// A sentence about each build that made something else.
    pub(super) skipped: Vec<String>,
}

/// Reads the AMIs of the last run from a manifest.
///
/// # Errors
/// [`CliError::Usage`] if the file is not a manifest, or if it is not clear which AMIs the last run built.
pub(super) fn last_run(path: &Path) -> Result<LastRun, CliError> {
    let name = path.display().to_string();
    parse(&read(path)?).map_err(|why| CliError::Usage(format!("{name:?} {why}")))
}

/// Reads a manifest. The error continues the file's name.
fn parse(text: &str) -> Result<LastRun, String> {
    const EXPECTED: &str = "Expected: the file that Packer's manifest post-processor writes";
    if text.trim().is_empty() {
        return Err(format!("is empty. {EXPECTED}"));
    }
    let manifest: Manifest = serde_json::from_str(text)
        .map_err(|error| format!("is not a manifest of Packer: {error}. {EXPECTED}"))?;
    let last = &manifest.last_run_uuid;
    let builds: Vec<Build> = manifest.builds.unwrap_or_default();
    let builds = builds.into_iter().filter(|it| it.packer_run_uuid == *last);
    let mut run = LastRun {
        amis: Vec::new(),
        skipped: Vec::new(),
    };
    for build in builds {
        let (name, builder) = (&build.name, &build.builder_type);
        match build.amis() {
            // A post-processor such as amazon-import makes AMIs from what another builder made.
            Ok(amis) => run.amis.extend(amis),
            // One that names an AMI must not be skipped, whatever the builder is called.
            Err(_) if !build.makes_amis() && !build.artifact_id.contains("ami-") => run.skipped.push(format!(
                "Packer's build {name:?} is skipped, because its builder {builder:?} makes no AMIs"
            )),
            Err(why) => {
                return Err(format!(
                    "has an unrecognised artifact_id for the build {name:?} of the builder {builder:?}: {:?}. \
                     Accepted: <Region>:<AMI>, with commas between several. {why}",
                    build.artifact_id
                ));
            }
        }
    }
    match (run.amis.is_empty(), run.skipped.is_empty()) {
        (false, _) => Ok(run),
        (true, true) => Err(format!(
            "has no build of the last run, which is {last:?}. Run `packer build` again"
        )),
        (true, false) => {
            let skipped = run.skipped.join(". ");
            Err(format!("has no AMI of the last run. {skipped}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(run: &str, builder: &str, artifact: &str) -> Value {
        json!({
            "name": "golden", "builder_type": builder, "build_time": 1764380000, "files": null,
            "artifact_id": artifact, "packer_run_uuid": run, "custom_data": null,
        })
    }

    fn manifest(builds: &[Value]) -> String {
        json!({ "builds": builds, "last_run_uuid": "2" }).to_string()
    }

    fn amis(text: &str) -> Vec<String> {
        let amis = parse(text).unwrap().amis.into_iter();
        amis.map(|it| format!("{}:{}", it.region.unwrap(), it.image))
            .collect()
    }

    #[test]
    fn every_artefact_of_every_build_of_the_last_run_counts_and_no_earlier_one() {
        let text = manifest(&[
            build("1", "amazon-ebs", "eu-west-1:ami-0a1b2c3d"),
            build("1", "amazon-ebs", "from an old version"),
            build(
                "2",
                "amazon-ebssurrogate",
                "eu-west-1:ami-0a1b2c3e,us-east-1:ami-0a1b2c3f",
            ),
            build("2", "amazon-chroot", "eu-west-1:ami-0a1b2c40"),
        ]);
        assert_eq!(
            amis(&text),
            [
                "eu-west-1:ami-0a1b2c3e",
                "us-east-1:ami-0a1b2c3f",
                "eu-west-1:ami-0a1b2c40"
            ]
        );
    }

    #[test]
    fn what_makes_no_ami_is_skipped_by_name() {
        let text = manifest(&[
            build("2", "docker.base", "sha256:0a1b"),
            build("2", "amazon-ebsvolume", "eu-west-1:vol-0a1b2c3d"),
            build("2", "amazon-ebs", "eu-west-1:ami-0a1b2c3d"),
        ]);
        assert_eq!(amis(&text), ["eu-west-1:ami-0a1b2c3d"]);
        assert_eq!(
            parse(&text).unwrap().skipped,
            [
                "Packer's build \"golden\" is skipped, because its builder \"docker.base\" makes no AMIs",
                "Packer's build \"golden\" is skipped, because its builder \"amazon-ebsvolume\" makes no AMIs"
            ]
        );
    }

    #[test]
    fn an_ami_that_a_post_processor_imported_counts_whichever_builder_made_the_disk() {
        let text = manifest(&[build("2", "qemu", "eu-west-1:ami-0a1b2c3d")]);
        assert_eq!(amis(&text), ["eu-west-1:ami-0a1b2c3d"]);
    }

    #[test]
    fn a_manifest_that_does_not_say_what_was_built_is_an_error() {
        for (text, why) in [
            ("", "is empty. Expected: "),
            (" \n", "is empty. Expected: "),
            ("{\"builds\": [", "is not a manifest of Packer: EOF"),
            ("[]", "is not a manifest of Packer: "),
            ("{}", "is not a manifest of Packer: missing field"),
            ("{\"builds\": []}", "missing field `last_run_uuid`"),
            (
                "{\"builds\": null, \"last_run_uuid\": \"2\"}",
                "has no build of the last run, which is \"2\"",
            ),
            (
                &manifest(&[build("1", "amazon-ebs", "eu-west-1:ami-0a1b2c3d")]),
                "has no build of the last run, which is \"2\"",
            ),
            (
                &manifest(&[build("2", "docker", "sha256:0a1b")]),
                "has no AMI of the last run. Packer's build \"golden\" is skipped",
            ),
            (
                &manifest(&[build("2", "amazon-ebs", "")]),
                "has an unrecognised artifact_id for the build \"golden\" of the builder \"amazon-ebs\": \"\".",
            ),
            (
                &manifest(&[build("2", "amazon-ebs", "ami-0a1b2c3d")]),
                "\"ami-0a1b2c3d\" names no Region",
            ),
            (
                &manifest(&[build("2", "amazon-ebs", "eu-west-1:ami-0a1b2c3d,")]),
                "Accepted: <Region>:<AMI>, with commas between several. ",
            ),
            (
                &manifest(&[build("2", "amazon-ebs", "eu-west-1.example:ami-0a1b2c3d")]),
                "is not a Region",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}

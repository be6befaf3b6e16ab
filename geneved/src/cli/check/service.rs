//! Runs the check as the service would: another geneved with the service's user, groups and capabilities, by
//! setpriv(1).

use std::io;
use std::path::Path;
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::cli::context::CommandContext;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::daemon::capability_probe::SERVICE_USER;

/// User, groups and capabilities that the service is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceUnit {
    user: String,
    group: String,
    /// Capabilities in lower case, without their prefix.
    capabilities: Vec<String>,
    source: &'static str,
}

/// Checks a file as the service would; without a file, the host.
pub(super) fn check(context: &CommandContext, file: Option<&Path>) -> Result<(), CliError> {
    if !geteuid().is_root() {
        return Err(CliError::Refused(
            "Error: \"--service\": only root can take the place of the service's user; run it as root"
                .into(),
        ));
    }
    let unit = ServiceUnit::installed();
    if !User::from_name(&unit.user).is_ok_and(|user| user.is_some()) {
        return Err(CliError::Refused(format!(
            "Error: \"--service\": there is no user \"{}\"; the packages make it, or \"useradd --system {SERVICE_USER}\"",
            unit.user
        )));
    }
    let style = context.style();
    if !style.json {
        output::say(&format!(
            "as user {}, group {}, with {} ({})",
            unit.user,
            unit.group,
            match unit.capabilities.is_empty() {
                true => "no capability".to_owned(),
                false => unit.capabilities.join(", "),
            },
            unit.source
        ))?;
    }
    let own = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new("setpriv");
    command.args(unit.arguments()).arg("--").arg(&own);
    let shapes = [
        (style.json, "-json"),
        (style.pretty, "-pretty"),
        (style.brief, "-brief"),
    ];
    let shapes = shapes.iter().filter(|(wanted, _)| *wanted);
    command.args(shapes.map(|(_, option)| option));
    command.arg("--socket").arg(context.socket()).arg("check");
    command.args(file);
    let status = command.status().map_err(|error| failed(&error))?;
    match status.code() {
        Some(0) => Ok(()),
        // Exit codes of setpriv and the shell for a program that cannot be run.
        Some(126 | 127) => Err(CliError::Refused(format!(
            "Error: \"--service\": user {} cannot run {}; install it where everybody may",
            unit.user,
            own.display()
        ))),
        code => Err(CliError::Reported(
            code.and_then(|code| u8::try_from(code).ok()).unwrap_or(2),
        )),
    }
}

fn failed(error: &io::Error) -> CliError {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; install util-linux",
        _ => "",
    };
    CliError::Refused(format!("Error: \"--service\": setpriv: {error}{hint}"))
}

impl ServiceUnit {
    /// The unit that the packages install.
    fn packaged() -> Self {
        ServiceUnit {
            user: SERVICE_USER.into(),
            group: SERVICE_USER.into(),
            capabilities: vec!["net_admin".into()],
            source: "as the packages have it",
        }
    }

    /// The unit known to systemd, including drop-ins; otherwise that of the packages.
    fn installed() -> Self {
        const SHOW: [&str; 3] = [
            "show",
            "geneved.service",
            "--property=LoadState,User,Group,AmbientCapabilities,CapabilityBoundingSet",
        ];
        let shown = Command::new("systemctl").args(SHOW).output();
        let shown = shown.ok().filter(|output| output.status.success());
        let text = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.and_then(|text| Self::read(&text))
            .unwrap_or_else(Self::packaged)
    }

    /// Parses the output of `systemctl show`; `None` if systemd has no such unit.
    fn read(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        if value("LoadState")? != "loaded" {
            return None;
        }
        let or = |value: Option<&str>, other: &str| {
            let value = value.filter(|value| !value.is_empty());
            value.unwrap_or(other).to_owned()
        };
        let user = or(value("User"), "root");
        // Root keeps the bounding set, other users get the ambient capabilities.
        let set = match &*user {
            "root" => "CapabilityBoundingSet",
            _ => "AmbientCapabilities",
        };
        let names = value(set).unwrap_or_default().split_whitespace();
        Some(ServiceUnit {
            group: or(value("Group"), &user),
            user,
            capabilities: names
                .map(|name| name.to_lowercase().trim_start_matches("cap_").to_owned())
                .collect(),
            source: "as systemd starts geneved.service",
        })
    }

    /// Arguments for setpriv.
    fn arguments(&self) -> Vec<String> {
        let mut only = "-all".to_owned();
        for capability in &self.capabilities {
            only += &format!(",+{capability}");
        }
        let mut words = vec![
            format!("--reuid={}", self.user),
            format!("--regid={}", self.group),
            "--init-groups".into(),
            "--no-new-privs".into(),
        ];
        words.extend(
            ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={only}")),
        );
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_systemd_counts_where_it_has_one() {
        let shown =
            "User=gnv\nGroup=\nLoadState=loaded\nAmbientCapabilities=cap_net_admin cap_sys_admin\n";
        let unit = ServiceUnit::read(shown).unwrap();
        assert_eq!((&*unit.user, &*unit.group), ("gnv", "gnv"));
        assert_eq!(
            unit.arguments()[4..],
            [
                "--inh-caps=-all,+net_admin,+sys_admin",
                "--ambient-caps=-all,+net_admin,+sys_admin",
                "--bounding-set=-all,+net_admin,+sys_admin"
            ]
        );
        assert_eq!(ServiceUnit::read("LoadState=not-found\nUser=\n"), None);
        assert_eq!(ServiceUnit::read(""), None);
    }

    #[test]
    fn the_packaged_unit_is_what_is_assumed() {
        let unit = include_str!("../../../../packaging/geneved.service");
        let has = |line: &str| assert!(unit.lines().any(|l| l == line), "{line}");
        let packaged = ServiceUnit::packaged();
        has(&format!("User={}", packaged.user));
        has(&format!("Group={}", packaged.group));
        has("AmbientCapabilities=CAP_NET_ADMIN");
        assert_eq!(packaged.capabilities, ["net_admin"]);
    }
}

//! Reload of the configuration while the daemon runs.

use sd_notify::NotifyState;

use super::core::{Core, host_event};
use crate::config::settings::RestartSetting;
use crate::config::{file, plan};
use crate::control::protocol::ReloadReply;
use crate::control::yielding;
use crate::refusal::Refusal;

/// Serializes the reply, on another thread because it may be long.
pub(super) async fn told(done: ReloadReply) -> Vec<u8> {
    let write = move || serde_json::to_vec(&done).expect("replies have a form in JSON");
    yielding::spawn_blocking(write).await
}

impl Core {
    /// Reads the file again and applies the differences.
    pub(super) async fn reload(&self) -> Result<ReloadReply, Refusal> {
        if let Ok(state) = NotifyState::monotonic_usec_now() {
            self.service_manager()
                .tell(&[NotifyState::Reloading, state]);
        }
        let done = self.reload_file(false).await;
        self.service_manager().tell(&[NotifyState::Ready]);
        match &done {
            Ok(done) => {
                let told = plan::told(&done.steps);
                tracing::info!(summary = done.summary, "reloaded: {told}");
                self.hub()
                    .announce(host_event(None, "reloaded", done.summary.clone()));
                for kept in &done.restart {
                    tracing::warn!(
                        key = kept.key,
                        running = kept.running,
                        configured = kept.configured,
                        reason = kept.reason,
                        "{} changes from {} to {} with a restart only",
                        kept.key,
                        kept.running,
                        kept.configured
                    );
                }
            }
            Err(refusal) => {
                tracing::error!(%refusal, "not reloaded; nothing was changed: {refusal}");
            }
        }
        done
    }

    /// With `dry_run` nothing is changed.
    pub(super) async fn reload_file(&self, dry_run: bool) -> Result<ReloadReply, Refusal> {
        let path = self.config_path().to_owned();
        let config = yielding::spawn_blocking(move || file::load(&path))
            .await
            .map_err(|faults| {
                let all: Vec<_> = faults.iter().map(ToString::to_string).collect();
                Refusal::new(all.join("\n"), "")
            })?;
        let mut state = config.state;
        // Settings of [daemon] take effect at the next start only.
        let running = self.state().await.fabric;
        if state.fabric.secret && !running.secret {
            let labelled = state.links.keys().find(|link| state.uses_labels(link));
            if let Some(link) = labelled {
                return Err(Refusal::new(
                    format!(
                        "link \"{link}\" uses labels, and the daemon started without \"label-secret-file\""
                    ),
                    "restart the daemon",
                ));
            }
        }
        state.fabric = running;
        let mut restart = self.settings().kept_from(&config.daemon);
        if restart.iter().all(|kept| kept.key != "label-secret-file")
            && config.secret.as_ref() != self.secret()
        {
            restart.push(RestartSetting {
                key: "label-secret-file".into(),
                running: "the secret that was read at start".into(),
                configured: "another secret".into(),
                reason: "flows were decided by it, on other hosts as well".into(),
            });
        }
        let plan = match dry_run {
            true => self.rehearse(state).await?,
            false => self.become_state(state).await?,
        };
        let mut summary = match dry_run {
            true => format!("nothing was changed; it would be: {plan}"),
            false => plan.to_string(),
        };
        if !restart.is_empty() {
            summary += "; [daemon] changed, which needs a restart";
        }
        match self.waiting() {
            0 => {}
            1 => summary += "; 1 link waits (\"geneved link show\")",
            waiting => summary += &format!("; {waiting} links wait (\"geneved link show\")"),
        }
        Ok(ReloadReply {
            summary,
            steps: plan.into_steps(),
            restart,
        })
    }
}

//! Preparation of changes: the new state, whether it is possible, and the steps to get there.
//!
//! This happens beside the main loop, on a separate thread if there is much to do. A change holds `Core::changing`
//! from here until it is complete, so that the state it was compared with stays current; `Core::inner` is held only
//! while the change is made.

use std::sync::Arc;

use super::interfaces::UnreadyPolicy;
use super::{Core, CoreState, LinkRuntime};
use crate::config::args::ObjectChange;
use crate::config::plan::Plan;
use crate::config::secret::LabelSecret;
use crate::config::state::DesiredState;
use crate::config::value::IfName;
use crate::control::yielding;
use crate::daemon::compile::{outdated_by, verify};
use crate::refusal::Refusal;

/// Maximum number of changes prepared without a separate thread.
const FEW_CHANGES: usize = 64;

/// A new state, and the steps to it from the running one.
struct PreparedChange {
    state: Arc<DesiredState>,
    plan: Plan,
}

impl Core {
    /// Applies all of these changes or none.
    pub(in crate::daemon) async fn apply(
        &self,
        changes: Vec<ObjectChange>,
    ) -> Result<Plan, Refusal> {
        let _changing = self.changing.lock().await;
        let mut named = Vec::new();
        for change in &changes {
            named.extend(change.link.as_ref().map(|link| link.name.clone()));
            named.extend(change.address.as_ref().map(|address| address.dev.clone()));
        }
        let long = changes.len() > FEW_CHANGES;
        let make = move |old: &DesiredState| {
            let mut state = old.clone();
            for (number, change) in changes.iter().enumerate() {
                let applied = state.apply(change);
                applied.map_err(|refusal| refusal.of_change(number))?;
            }
            Ok(state)
        };
        let PreparedChange { state, mut plan } = self.prepare(long, make).await?;
        let mut inner = self.inner().await;
        let changed = outdated_by(&plan);
        let paths = self.refuse_loops(&inner, &state, &changed).await?;
        // Somebody else may have changed the interface; setting the link restores it.
        named.retain(|name| {
            inner.state.links.contains_key(name)
                && state.links.contains_key(name)
                && !plan.replace.contains(name)
        });
        for name in named {
            let there = inner
                .running
                .get(&name)
                .is_some_and(LinkRuntime::has_interface);
            if !there {
                plan.set.retain(|n| *n != name);
                plan.replace.push(name);
            } else if !plan.set.contains(&name) {
                plan.set.push(name);
            }
        }
        self.transition(
            &mut inner,
            state,
            (plan, Some(paths)),
            UnreadyPolicy::Refuse,
        )
        .await
    }

    /// Switches to this state. Links that were lost are created again, and those that cannot be created yet wait.
    pub(in crate::daemon) async fn become_state(
        &self,
        state: DesiredState,
    ) -> Result<Plan, Refusal> {
        let _changing = self.changing.lock().await;
        let PreparedChange { state, plan } =
            self.prepare(state.is_long(), move |_| Ok(state)).await?;
        let mut inner = self.inner().await;
        let plan = self.with_lost(&inner, &state, plan).await;
        self.transition(&mut inner, state, (plan, None), UnreadyPolicy::Wait)
            .await
    }

    /// Returns what [`Core::become_state`] would do.
    ///
    /// # Errors
    /// If it would be refused.
    pub(in crate::daemon) async fn rehearse(&self, state: DesiredState) -> Result<Plan, Refusal> {
        let _changing = self.changing.lock().await;
        let PreparedChange { state, plan } =
            self.prepare(state.is_long(), move |_| Ok(state)).await?;
        let inner = self.inner().await;
        Ok(self.with_lost(&inner, &state, plan).await)
    }

    /// Builds a state, checks that it compiles, and compares it with the running one; `long` says to use another
    /// thread.
    async fn prepare(
        &self,
        long: bool,
        make: impl FnOnce(&DesiredState) -> Result<DesiredState, Refusal> + Send + 'static,
    ) -> Result<PreparedChange, Refusal> {
        let old = self.state().await;
        let key = self.secret().map(LabelSecret::label_key);
        let long = long || old.is_long();
        let prepare = move || {
            let state = make(&old)?;
            verify(key.as_ref(), &old, &state)?;
            let plan = Plan::between(&old, &state);
            let state = Arc::new(state);
            Ok(PreparedChange { state, plan })
        };
        yielding::spawn_blocking_if(long, prepare).await
    }

    /// Adds the steps that repair what differs in the kernel from its configuration.
    async fn with_lost(&self, inner: &CoreState, state: &DesiredState, mut plan: Plan) -> Plan {
        let stays = |name: &IfName| state.links.contains_key(name);
        let (absent, astray) = self.misplaced(inner).await;
        let lost = inner
            .running
            .iter()
            .filter(|(_, running)| running.is_lost());
        let lost = lost.map(|(name, _)| name).chain(&absent);
        let lost: Vec<_> = lost.filter(|name| stays(name)).cloned().collect();
        plan.set.retain(|n| !lost.contains(n));
        plan.replace.retain(|n| !lost.contains(n));
        plan.replace.extend(lost);
        for name in astray {
            if stays(&name) && !plan.set.contains(&name) && !plan.replace.contains(&name) {
                plan.set.push(name);
            }
        }
        plan
    }
}

//! Compiles the running state for the workers.

use std::sync::Arc;

use super::{Core, CoreState};
use crate::control::yielding;
use crate::daemon::backends::UnhealthyBackends;
use crate::daemon::compile::{Outdated, RunningLink, TableInput};

/// Maximum number of objects compiled without a separate thread.
const FEW_OBJECTS: usize = 256;

impl Core {
    /// Compiles what is outdated, and publishes it together with what is not.
    pub(in crate::daemon) async fn publish(&self, inner: &mut CoreState, outdated: Outdated) {
        let state = Arc::clone(&inner.state);
        let paths = Arc::clone(&inner.paths);
        let down = self.board(|board| UnhealthyBackends::of(&state, board));
        let (outdated, names) = inner.builder.concerned(&state, &paths, &down, outdated);
        let running = names.into_iter().filter_map(|name| {
            let running = inner.running.get(&name)?;
            let running = RunningLink {
                index: running.index,
                mtu: running.mtu,
                followed: running.following.addresses().to_vec(),
            };
            Some((name, running))
        });
        let input = TableInput {
            running: running.collect(),
            state,
            paths,
            down,
            outdated,
        };
        let long = match &input.outdated {
            Outdated::All => input.state.is_long(),
            Outdated::Links(names) => {
                let objects = names.iter().map(|name| input.state.objects_of(name));
                objects.sum::<usize>() > FEW_OBJECTS
            }
        };
        let outdated = input.outdated.clone();
        let mut builder = inner.builder.lend();
        let build = move || (builder.build(input), builder);
        let (tables, builder) = yielding::spawn_blocking_if(long, build).await;
        inner.builder = builder;
        let count = u32::try_from(inner.running.len()).unwrap_or(u32::MAX);
        self.engine.flows().flows.set_links(count);
        self.engine.publish(tables);
        self.note_own_links(inner, &inner.state, &outdated);
        self.count_waiting(inner);
        self.listen_for(inner, &outdated);
    }
}

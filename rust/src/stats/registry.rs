//! Everything that one worker counts, in one place.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::counter::{Counter, counters};
use super::latency::Latency;
use crate::command::COMMANDS;

counters! {
    /// What the worker does.
    WorkerStats {
        /// Turns of its loop.
        turns,
        /// Milliseconds since it started.
        now_ms,
        /// Bytes of requests, replies and logs that it holds.
        memory_bytes,
        /// Generation of the plan in force.
        plan_generation,
    }
}

counters! {
    /// What clients do at one listener.
    ListenerCounters {
        /// Sessions accepted.
        downstream_cx_total,
        /// Sessions now.
        downstream_cx_active,
        /// Sessions ended.
        downstream_cx_destroy,
        /// Sessions closed for malformed bytes.
        downstream_cx_protocol_error,
        /// Bytes received.
        downstream_cx_rx_bytes_total,
        /// Bytes sent.
        downstream_cx_tx_bytes_total,
        /// Sessions refused because there were too many.
        downstream_cx_max_clients,
        /// Sessions closed for being idle.
        downstream_cx_idle_timeout,
        /// Sessions closed for not authenticating in time.
        downstream_cx_handshake_timeout,
        /// Sessions closed because they did not read their replies.
        downstream_cx_output_overflow,
        /// Sessions closed because they held most when the memory budget was used up.
        downstream_cx_memory_overflow,
        /// Sessions closed by a drain.
        downstream_cx_drain_close,
        /// Times a session was not read from because of a bound.
        downstream_cx_paused,
        /// Commands received.
        downstream_rq_total,
        /// Commands not answered yet.
        downstream_rq_active,
        /// Commands answered by the proxy itself.
        downstream_rq_local,
        /// Commands that the proxy answered with an error.
        downstream_rq_error,
        /// Commands for which there was no route.
        downstream_rq_no_route,
        /// Commands that this version refuses.
        downstream_rq_unsupported,
    }
}

counters! {
    /// What happens at one endpoint.
    EndpointCounters {
        /// Connections tried.
        upstream_cx_total,
        /// Connections ready.
        upstream_cx_active,
        /// Tries that failed.
        upstream_cx_connect_fail,
        /// Connections lost.
        upstream_cx_destroy,
        /// Connections closed because the server sent something that no reply can be.
        upstream_cx_protocol_error,
        /// Bytes received.
        upstream_cx_rx_bytes_total,
        /// Bytes sent.
        upstream_cx_tx_bytes_total,
        /// Commands sent for clients.
        upstream_rq_total,
        /// Commands without a reply yet.
        upstream_rq_active,
        /// Commands that got no reply in time.
        upstream_rq_timeout,
        /// Commands whose connection broke before the reply.
        upstream_rq_indoubt,
        /// Commands refused because the endpoint was not there.
        upstream_rq_unavailable,
        /// Replies `MOVED` and `ASK` that were followed.
        upstream_internal_redirect_succeeded_total,
        /// The same that could not be.
        upstream_internal_redirect_failed_total,
    }
}

counters! {
    /// What happens to one replica.
    ReplicaCounters {
        /// Effects committed and not acknowledged.
        lag,
        /// Bytes of the log held for it.
        lag_bytes,
        /// Effects acknowledged.
        acked_total,
        /// Effects sent.
        sent_total,
        /// Effects dropped because the log was full, or of keys that are not known; a resync heals them.
        lost_total,
        /// Error replies to effects.
        error_total,
        /// Replies to effects that were not the primary's.
        differ_total,
        /// Keys in doubt, to be copied.
        repair_keys,
        /// Keys copied to heal it.
        resync_keys_total,
        /// Bytes of those copies.
        resync_bytes_total,
        /// Keys that the resync in course has looked at.
        resync_done,
        /// Keys that it has to look at, about.
        resync_total,
        /// Keys that it looked at in the last second.
        resync_rate,
        /// Copies that may be in flight now.
        resync_limit,
        /// Resyncs by scanning that were begun.
        resync_runs_total,
        /// Those of them that look at every key.
        resync_full_total,
        /// Keys that were there already when a resync only added: not proven to be equal.
        unproven_keys,
        /// Keys that cannot be copied.
        unrepaired_keys,
        /// Buckets of keys marked dirty.
        dirty_buckets,
        /// The generation of its dirty map.
        generation,
        /// Restarts of its Redis that were noticed.
        restarts_total,
    }
}

counters! {
    /// The log of one sequencer.
    LogStats {
        /// Entries held.
        entries,
        /// Bytes held.
        bytes,
        /// The bound.
        limit,
        /// Effects committed.
        committed_total,
        /// Entries dropped because the log was full.
        overflow_total,
    }
}

/// Text that goes with counters; changes rarely.
#[derive(Debug, Default)]
pub struct Label(Mutex<Vec<(&'static str, String)>>);

impl Label {
    /// Set one field.
    pub fn set(&self, name: &'static str, value: impl Into<String>) {
        let mut fields = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fields.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value.into(),
            None => fields.push((name, value.into())),
        }
    }

    /// Read one field.
    pub fn get(&self, name: &str) -> String {
        let fields = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        for (name, value) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            map.insert((*name).to_owned(), Value::from(value.as_str()));
        }
    }
}

/// One listener.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// Its name.
    pub label: Label,
    /// Its counters.
    pub count: ListenerCounters,
    /// From a command's last byte read to its reply's being queued to the client.
    pub time: Latency,
}

/// One endpoint.
#[derive(Debug, Default)]
pub struct EndpointStats {
    /// Cluster, id, address, state, reason, `run_id`, version.
    pub label: Label,
    /// Its counters.
    pub count: EndpointCounters,
    /// From a command's being read to its reply's being here.
    pub time: Latency,
    /// Its version and how many commands it has, for the other workers; not shown.
    pub server: Mutex<(String, i64)>,
}

/// One replica.
#[derive(Debug, Default)]
pub struct ReplicaStats {
    /// Primary, mirror, state, reason.
    pub label: Label,
    /// Its counters.
    pub count: ReplicaCounters,
}

/// All of it. The lists change with plans; the data path holds its own `Arc`s and never looks here.
#[derive(Debug)]
pub struct Registry {
    /// The worker.
    pub worker: WorkerStats,
    /// Commands received, by id.
    pub commands: Vec<Counter>,
    pub(super) lists: Mutex<Lists>,
    /// What is known of the group: JSON, or nothing.
    group: Mutex<String>,
}

/// What is listed now.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) listeners: Vec<Arc<ListenerStats>>,
    pub(super) endpoints: Vec<Arc<EndpointStats>>,
    pub(super) replicas: Vec<Arc<ReplicaStats>>,
    pub(super) logs: Vec<(String, Arc<LogStats>)>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            worker: WorkerStats::default(),
            commands: (0..=COMMANDS).map(|_| Counter::default()).collect(),
            lists: Mutex::default(),
            group: Mutex::default(),
        }
    }
}

impl Registry {
    /// Replace what is listed.
    pub fn publish(
        &self,
        listeners: Vec<Arc<ListenerStats>>,
        endpoints: Vec<Arc<EndpointStats>>,
        replicas: Vec<Arc<ReplicaStats>>,
        logs: Vec<(String, Arc<LogStats>)>,
    ) {
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner) =
            Lists { listeners, endpoints, replicas, logs };
    }

    /// What is known of the group now.
    pub fn set_group(&self, text: String) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// See [`Self::set_group`].
    pub fn group(&self) -> String {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The version of a server and how many commands it has, as one that is connected to it knows them.
    pub fn server(&self, cluster: &str, id: &str) -> Option<(String, i64)> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |e: &&Arc<EndpointStats>| e.label.get("cluster") == cluster && e.label.get("id") == id;
        let endpoint = lists.endpoints.iter().find(is)?;
        Some(endpoint.server.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

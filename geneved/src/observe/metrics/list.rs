//! Table of all metrics. A test checks that geneved-metrics(7) lists the same ones.

use super::{Metric, MetricKind};

macro_rules! metrics {
    ($($word:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal)+) => {
        $(
            #[doc = $help]
            pub static $word: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+
        /// All metrics, in the order of a page.
        pub static ALL: &[&Metric] = &[$(&$word),+];
    };
}

metrics! {
    BUILD_INFO: Gauge "geneved_build_info" ["version"]
        "The running version; always 1."
    IO_INFO: Gauge "geneved_io_info" ["backend", "cause"]
        "The I/O backend of the packet path, and why it was chosen; always 1."
    FEATURE_AVAILABLE: Gauge "geneved_feature_available" ["feature"]
        "Whether the kernel has a feature that the packet path can use."
    LINK_INFO: Gauge "geneved_link_info" ["link", "vni"]
        "A link and its virtual network identifier; always 1."
    LINK_UP: Gauge "geneved_link_up" ["link"]
        "Whether a link works; 0 if its interface is lost or the link is waiting."
    LINKS_WAITING: Gauge "geneved_links_waiting" []
        "Links that wait for something that they need: a local address, a port, a network namespace, or the name of their interface."
    LINK_MTU: Gauge "geneved_link_mtu_bytes" ["link"]
        "MTU of a link's interface."
    PACKETS: Counter "geneved_packets_total" ["link", "direction"]
        "Forwarded packets, counted as on the wire."
    BYTES: Counter "geneved_bytes_total" ["link", "direction"]
        "Inner bytes of forwarded packets."
    DROPPED: Counter "geneved_dropped_packets_total" ["link", "direction", "reason"]
        "Packets that were not forwarded; an empty link is for packets that belong to no link, for which every reason is listed. Links list the reasons that occurred."
    CONSUMED: Counter "geneved_consumed_packets_total" ["link", "direction", "reason"]
        "Packets that this host consumed itself, such as neighbour solicitations that it answered; they are neither forwarded nor dropped."
    OPTION_PACKETS: Counter "geneved_option_packets_total" ["link", "direction", "option"]
        "Packets with a known Geneve option."
    FLOWS: Gauge "geneved_flows" ["link"]
        "Flows of a link in the flow table."
    FLOWS_LIMIT: Gauge "geneved_flows_limit" ["link"]
        "Flows that a link may currently have."
    FLOWS_EVICTED: Counter "geneved_flows_evicted_total" ["link"]
        "Flows of a link that were evicted for new ones."
    FLOWS_REFUSED: Counter "geneved_flows_refused_total" ["link"]
        "Flows of a link that were not admitted because none could be evicted."
    FLOW_TABLE_LIMIT: Gauge "geneved_flow_table_limit" []
        "Flows that all links may have together."
    FLOW_TABLE_EXPIRED: Counter "geneved_flow_table_expired_total" []
        "Flows that timed out."
    FDB_ENTRIES: Gauge "geneved_fdb_entries" ["link"]
        "MAC addresses that an Ethernet link has learned."
    FDB_LIMIT: Gauge "geneved_fdb_limit" ["link"]
        "MAC addresses that an Ethernet link may learn."
    BRIDGE_EVENTS: Counter "geneved_bridge_events_total" ["link", "event"]
        "Events of an Ethernet link: MAC addresses learned and moved, frames whose source was not learned because the table is full, frames flooded, and ARP requests or neighbour solicitations answered by this host (suppressed)."
    NAT_PORTS_IN_USE: Gauge "geneved_nat_ports_in_use" ["link", "nat"]
        "Ports of a source NAT pool in use."
    NAT_PORTS_LIMIT: Gauge "geneved_nat_ports_limit" ["link", "nat"]
        "Ports of a source NAT pool."
    STAND_IN_PORTS_IN_USE: Gauge "geneved_stand_in_ports_in_use" ["link", "consumer"]
        "Source ports of a link's address in use for clients of another link that connect to proxied endpoints."
    STAND_IN_PORTS_LIMIT: Gauge "geneved_stand_in_ports_limit" ["link", "consumer"]
        "Source ports of a link's address that clients of another link may use for proxied endpoints."
    RULE_HITS: Counter "geneved_rule_hits_total" ["link", "rule"]
        "Flows that a rule decided."
    CLASS_PASSED: Counter "geneved_class_passed_bytes_total" ["link", "class"]
        "Inner bytes of a class that were forwarded."
    CLASS_DROPPED: Counter "geneved_class_dropped_bytes_total" ["link", "class"]
        "Inner bytes of a class that were dropped because they exceeded a rate."
    CLASS_MARKED: Counter "geneved_class_marked_bytes_total" ["link", "class"]
        "Inner bytes of a class that were forwarded with an ECN mark instead of dropped."
    CLASS_BACKLOG: Gauge "geneved_class_backlog_bytes" ["link", "class"]
        "Inner bytes of a class that are queued."
    BACKEND_STATE: Gauge "geneved_backend_state" ["link", "service", "backend", "state"]
        "State of a service's backend: 1 for its current state out of up, down, unknown and draining, 0 for the others."
    BACKEND_WEIGHT: Gauge "geneved_backend_weight" ["link", "service", "backend"]
        "A backend's share of a service's new flows."
    HOST_GSO: Gauge "geneved_host_gso_enabled" ["host"]
        "Whether datagrams are sent to a host in trains (UDP GSO)."
    HOST_PATH_MTU: Gauge "geneved_host_path_mtu_bytes" ["host"]
        "Path MTU that the underlay reported for a host; absent where it reported none."
    ICMP_ERRORS: Counter "geneved_icmp_errors_total" ["verdict"]
        "ICMP errors about sent datagrams: believed, about a datagram that was not sent recently (not-sent), about one that belongs to no link (not-ours), received on an interface that is not part of the underlay (not-from-underlay), or with an MTU that everything sent fits."
    WORKER_TURNS: Counter "geneved_worker_turns_total" ["worker"]
        "Iterations of a worker's loop."
    WORKER_CPU: Counter "geneved_worker_cpu_seconds_total" ["worker"]
        "CPU time of a worker."
    WORKER_STALLED: Gauge "geneved_worker_stalled_seconds" ["worker"]
        "How long a worker has been stalled, making no progress although it was woken; 0 if it is not."
    WORKER_SLOTS_IN_USE: Gauge "geneved_worker_slots_in_use" ["worker", "kind"]
        "Slots in use in a worker's fixed-size pools: buffers for packets (tun) and for trains (udp), trains being sent, writes into TUN."
    WORKER_SLOTS_LIMIT: Gauge "geneved_worker_slots_limit" ["worker", "kind"]
        "Slots in a worker's fixed-size pools."
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the daemon started, in seconds since 1970."
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "CPU time of the daemon, user and system."
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Resident memory of the daemon."
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Address space of the daemon."
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the daemon."
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "Open file descriptors."
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "Limit of open file descriptors."
}

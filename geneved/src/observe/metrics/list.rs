//! The list of all metrics. The manual page geneved-metrics.7 has the same list; a test compares them.

use super::{Kind, Metric};

macro_rules! metrics {
    ($($word:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal)+) => {
        $(
            #[doc = $help]
            pub static $word: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+
        /// Every metric, in the order of a page.
        pub static ALL: &[&Metric] = &[$(&$word),+];
    };
}

metrics! {
    BUILD_INFO: Gauge "geneved_build_info" ["version"]
        "The version that runs; always 1."
    IO_INFO: Gauge "geneved_io_info" ["backend", "cause"]
        "The I/O backend that moves packets, and why it is this one; always 1."
    FEATURE_AVAILABLE: Gauge "geneved_feature_available" ["feature"]
        "Whether the kernel offers something that the packet path can use."
    LINK_INFO: Gauge "geneved_link_info" ["link", "vni"]
        "A link and its virtual network identifier; always 1."
    LINK_UP: Gauge "geneved_link_up" ["link"]
        "Whether a link works; 0 if its interface vanished, or it waits."
    LINKS_WAITING: Gauge "geneved_links_waiting" []
        "Links that wait for what they cannot do without: a local address, a port, a network namespace, the name of their interface."
    LINK_MTU: Gauge "geneved_link_mtu_bytes" ["link"]
        "MTU of a link's interface."
    PACKETS: Counter "geneved_packets_total" ["link", "direction"]
        "Packets that were forwarded, counted as they are on the wire."
    BYTES: Counter "geneved_bytes_total" ["link", "direction"]
        "Inner bytes of packets that were forwarded."
    DROPPED: Counter "geneved_dropped_packets_total" ["link", "direction", "reason"]
        "Packets that were not forwarded; an empty link stands for packets of no link, which have every reason. Links have the reasons that occurred."
    CONSUMED: Counter "geneved_consumed_packets_total" ["link", "direction", "reason"]
        "Packets that were for this host itself, as questions for neighbours are that it answered; they are neither forwarded nor dropped."
    OPTION_PACKETS: Counter "geneved_option_packets_total" ["link", "direction", "option"]
        "Packets with a Geneve option that this host knows."
    FLOWS: Gauge "geneved_flows" ["link"]
        "Flows of a link in the flow table."
    FLOWS_LIMIT: Gauge "geneved_flows_limit" ["link"]
        "Flows that a link may have as things are."
    FLOWS_EVICTED: Counter "geneved_flows_evicted_total" ["link"]
        "Flows of a link that had to go for new ones."
    FLOWS_REFUSED: Counter "geneved_flows_refused_total" ["link"]
        "Flows of a link that were not admitted, because nothing could go."
    FLOW_TABLE_LIMIT: Gauge "geneved_flow_table_limit" []
        "Flows that all links together may have."
    FLOW_TABLE_EXPIRED: Counter "geneved_flow_table_expired_total" []
        "Flows that ended because nothing was heard of them."
    FDB_ENTRIES: Gauge "geneved_fdb_entries" ["link"]
        "MAC addresses that an Ethernet link has learned."
    FDB_LIMIT: Gauge "geneved_fdb_limit" ["link"]
        "MAC addresses that an Ethernet link may learn."
    BRIDGE_EVENTS: Counter "geneved_bridge_events_total" ["link", "event"]
        "What an Ethernet link did: MAC addresses learned and moved, frames whose source was not learned because the table is full, frames flooded, questions for neighbours answered (suppressed)."
    NAT_PORTS_IN_USE: Gauge "geneved_nat_ports_in_use" ["link", "nat"]
        "Ports that a source NAT's pool has lent."
    NAT_PORTS_LIMIT: Gauge "geneved_nat_ports_limit" ["link", "nat"]
        "Ports that a source NAT's pool has."
    STAND_IN_PORTS_IN_USE: Gauge "geneved_stand_in_ports_in_use" ["link", "consumer"]
        "Ports of a link's address that stand for the clients of another link at proxied endpoints."
    STAND_IN_PORTS_LIMIT: Gauge "geneved_stand_in_ports_limit" ["link", "consumer"]
        "Ports of a link's address that the clients of another link may have at proxied endpoints."
    RULE_HITS: Counter "geneved_rule_hits_total" ["link", "rule"]
        "Flows that a rule decided."
    CLASS_PASSED: Counter "geneved_class_passed_bytes_total" ["link", "class"]
        "Inner bytes that passed a class."
    CLASS_DROPPED: Counter "geneved_class_dropped_bytes_total" ["link", "class"]
        "Inner bytes that were dropped because they were over a rate."
    CLASS_MARKED: Counter "geneved_class_marked_bytes_total" ["link", "class"]
        "Inner bytes that passed a class with a congestion mark in place of a drop."
    CLASS_BACKLOG: Gauge "geneved_class_backlog_bytes" ["link", "class"]
        "Inner bytes of a class that wait until they are within its rates."
    BACKEND_STATE: Gauge "geneved_backend_state" ["link", "service", "backend", "state"]
        "How a service's backend is: 1 for the state that it is in, of up, down, unknown and draining."
    BACKEND_WEIGHT: Gauge "geneved_backend_weight" ["link", "service", "backend"]
        "A backend's share of a service's new flows."
    HOST_GSO: Gauge "geneved_host_gso_enabled" ["host"]
        "Whether datagrams are sent to a host in trains (UDP GSO)."
    HOST_PATH_MTU: Gauge "geneved_host_path_mtu_bytes" ["host"]
        "Path MTU that the underlay reported for a host; absent where it reported none."
    ICMP_ERRORS: Counter "geneved_icmp_errors_total" ["verdict"]
        "ICMP errors about datagrams that were sent: believed, or about nothing that was sent lately (not-sent), about what is no link's (not-ours), or with an MTU that all that was sent fits."
    WORKER_TURNS: Counter "geneved_worker_turns_total" ["worker"]
        "Turns of a worker's loop."
    WORKER_CPU: Counter "geneved_worker_cpu_seconds_total" ["worker"]
        "CPU time of a worker."
    WORKER_STALLED: Gauge "geneved_worker_stalled_seconds" ["worker"]
        "For how long a worker has not moved although it was woken; 0 if it is well."
    WORKER_SLOTS_IN_USE: Gauge "geneved_worker_slots_in_use" ["worker", "kind"]
        "What a worker uses of its fixed stock: buffers for packets (tun) and for trains (udp), trains being sent, writes into TUN."
    WORKER_SLOTS_LIMIT: Gauge "geneved_worker_slots_limit" ["worker", "kind"]
        "What a worker has of its fixed stock."
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the daemon started, in seconds since 1970."
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "CPU time of the daemon, user and system."
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Memory of the daemon that is in RAM."
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Address space of the daemon."
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the daemon."
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "File descriptors that are open."
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "File descriptors that may be open."
}

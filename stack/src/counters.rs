//! Every counter of the engine, declared once with its help text.
//!
//! `mimbox stats`, the metrics page and `docs/counters.md` are made from this declaration.

macro_rules! counters {
    ($($(#[doc = $section:literal])? $variant:ident = $name:literal : $help:literal),+ $(,)?) => {
        /// The name of a counter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Counter {
            $(#[doc = $help] $variant),+
        }

        impl Counter {
            /// All counters in the order of their declaration.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant),+];

            /// The name that operators see.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name),+ }
            }

            /// What it counts.
            pub const fn help(self) -> &'static str {
                match self { $(Counter::$variant => $help),+ }
            }
        }
    };
}

counters! {
    RxFrames = "rx_frames": "frames received on all ports",
    RxBytes = "rx_bytes": "bytes received on all ports, Ethernet headers included",
    TxFrames = "tx_frames": "frames sent on all ports",
    TxBytes = "tx_bytes": "bytes sent on all ports, Ethernet headers included",
    TxNoFrame = "tx_no_frame": "packets not sent because no frame was free",
    TxCopies = "tx_copies": "segments copied because their frame was still being sent",
    TxSplits = "tx_splits": "segments split because they exceed the peer's segment size",

    DropTruncated = "drop_truncated": "frames shorter than their headers say",
    DropEthertype = "drop_ethertype": "frames of an Ethernet type that the box does not speak",
    DropIpHeader = "drop_ip_header": "packets with a malformed IP header",
    DropIpChecksum = "drop_ip_checksum": "packets with a wrong IPv4 header checksum",
    DropIpFragment = "drop_ip_fragment": "IP fragments (the box does not reassemble)",
    DropIpProtocol = "drop_ip_protocol": "packets to the box of a protocol that it does not speak",
    DropTcpHeader = "drop_tcp_header": "segments with a malformed TCP header or options",
    DropTcpChecksum = "drop_tcp_checksum": "segments with a wrong TCP checksum",
    DropTcpChecksumPartial = "drop_tcp_checksum_partial": "segments whose checksum is only the pseudo-header sum: the sender's device must have TX checksum offload switched off (ethtool -K DEV tx off)",
    DropIcmp = "drop_icmp": "ICMP messages that are truncated or have a wrong checksum",
    DropNotOurs = "drop_not_ours": "packets to an address that is not the box's",
    DropNoRoute = "drop_no_route": "packets with no route to their destination",
    DropNoNeighbour = "drop_no_neighbour": "packets dropped because the next hop did not answer ARP or NDP",
    DropNoConnection = "drop_no_connection": "segments that belong to no connection and were answered with a reset",
    DropMartian = "drop_martian": "packets with an impossible source or destination address",
    DropTtlExceeded = "drop_ttl_exceeded": "packets not forwarded because their hops ran out",
    DropTooBig = "drop_too_big": "packets not forwarded because they exceed the MTU of the next link",

    ArpReplies = "arp_replies": "ARP requests answered for the box's addresses",
    NdpReplies = "ndp_replies": "neighbour solicitations answered for the box's addresses",
    PingReplies = "ping_replies": "echo requests answered for the box's addresses",
    IcmpReceived = "icmp_received": "ICMP errors received for the box's connections",
    IcmpIgnored = "icmp_ignored": "ICMP errors that name no live connection or a sequence number outside its window",
    IcmpSent = "icmp_sent": "ICMP errors sent or carried across",
    IcmpLimited = "icmp_limited": "ICMP errors not sent because of their rate limit",
    NeighboursUnreachable = "neighbours_unreachable": "next hops that did not answer ARP or NDP",
    AddressConflicts = "address_conflicts": "times that another station claimed an address of the box",
    Forwarded = "forwarded": "packets forwarded unconverted in transparent mode",
    ForwardedFlows = "forwarded_flows": "connections left alone because both ends speak MPTCP",

    TcpSegmentsIn = "tcp_segments_in": "valid TCP segments received for the box's connections",
    TcpAcksOutdone = "tcp_acks_outdone": "acknowledgments passed over because the next in the same batch said more",
    TcpSegmentsOut = "tcp_segments_out": "TCP segments sent, retransmissions included",
    TcpBytesIn = "tcp_bytes_in": "TCP payload bytes accepted",
    TcpBytesOut = "tcp_bytes_out": "TCP payload bytes sent, retransmissions included",
    TcpRetransmits = "tcp_retransmits": "segments sent again",
    TcpFastRetransmits = "tcp_fast_retransmits": "times that loss recovery was entered on SACK or duplicate ACKs",
    TcpTimeouts = "tcp_timeouts": "retransmission timeouts",
    TcpHeardAgain = "tcp_heard_again": "connections heard again after a silence with several timeouts, whose data was sent again at once",
    TcpTailProbes = "tcp_tail_probes": "tail loss probes sent",
    TcpSpurious = "tcp_spurious": "recoveries undone because nothing had been lost",
    TcpMarksIn = "tcp_marks_in": "segments received with a congestion mark (ECN)",
    TcpMarkReductions = "tcp_mark_reductions": "times that the window was reduced because a peer echoed a congestion mark",
    TcpBlackHoles = "tcp_black_holes": "times that segments were made smaller because large ones vanished without an ICMP error",
    TcpOutOfOrder = "tcp_out_of_order": "segments received out of order",
    TcpDuplicates = "tcp_duplicates": "segments received that were already there",
    TcpOutOfWindow = "tcp_out_of_window": "segments outside the receive window",
    TcpReneged = "tcp_reneged": "out-of-order segments evicted to make room",
    TcpCoalesced = "tcp_coalesced": "small segments copied together to save frames",
    TcpNoBuffer = "tcp_no_buffer": "in-window segments dropped because frames were short",
    TcpPaws = "tcp_paws": "segments dropped by PAWS (RFC 7323)",
    TcpChallengeAcks = "tcp_challenge_acks": "challenge ACKs sent (RFC 5961)",
    TcpChallengeAcksLimited = "tcp_challenge_acks_limited": "challenge ACKs not sent because of their limit",
    TcpZeroWindowProbes = "tcp_zero_window_probes": "zero-window probes sent",
    TcpKeepalives = "tcp_keepalives": "keepalive probes sent",
    TcpResetsIn = "tcp_resets_in": "valid resets received",
    TcpResetsOut = "tcp_resets_out": "resets sent",
    TcpUserTimeouts = "tcp_user_timeouts": "connections given up because the peer did not answer",
    TcpSynRetransmits = "tcp_syn_retransmits": "SYN or SYN+ACK segments sent again",
    TcpTimeWaitReused = "tcp_time_wait_reused": "TIME-WAIT records that gave way to a new connection (RFC 6191)",

    MptcpCapableIn = "mptcp_capable_in": "SYNs received with MP_CAPABLE",
    MptcpCapableAccepted = "mptcp_capable_accepted": "connections established with MPTCP",
    MptcpFallbackNoOption = "mptcp_fallback_no_option": "connections that fell back to TCP because an option was missing",
    MptcpFallbackHandshake = "mptcp_fallback_handshake": "connections that fell back to TCP in the handshake",
    MptcpFallbackChecksum = "mptcp_fallback_checksum": "connections that fell back to TCP after a checksum failure",
    MptcpJoinIn = "mptcp_join_in": "SYNs received with MP_JOIN",
    MptcpJoinAccepted = "mptcp_join_accepted": "subflows established by MP_JOIN",
    MptcpJoinUnknownToken = "mptcp_join_unknown_token": "MP_JOINs refused: unknown token",
    MptcpJoinBadHmac = "mptcp_join_bad_hmac": "MP_JOINs refused: wrong HMAC",
    MptcpJoinLimit = "mptcp_join_limit": "MP_JOINs refused: too many subflows",
    MptcpDssChecksumErrors = "mptcp_dss_checksum_errors": "mappings whose checksum did not match",
    MptcpBadMapping = "mptcp_bad_mapping": "subflows reset because of an invalid mapping",
    MptcpBadOption = "mptcp_bad_option": "malformed or misplaced MPTCP options ignored",
    MptcpDataOutOfOrder = "mptcp_data_out_of_order": "segments that waited for data of another subflow",
    MptcpDataDuplicates = "mptcp_data_duplicates": "bytes received more than once at data level, by segment",
    MptcpDataOutOfWindow = "mptcp_data_out_of_window": "segments outside the data-level window",
    MptcpReinjections = "mptcp_reinjections": "segments sent again on another subflow",
    MptcpOpportunistic = "mptcp_opportunistic": "segments sent again on a faster subflow because the peer's window was full",
    MptcpPenalties = "mptcp_penalties": "congestion windows halved because their subflow kept the peer's window full",
    MptcpDataTimeouts = "mptcp_data_timeouts": "data-level retransmission timeouts",
    MptcpDataUnheard = "mptcp_data_unheard": "connections reset because data arrived and no DATA_ACK came back for two minutes",
    MptcpSubflowsDead = "mptcp_subflows_dead": "subflows that ended before their connection did",
    MptcpAddAddrOut = "mptcp_add_addr_out": "addresses announced",
    MptcpAddAddrEchoed = "mptcp_add_addr_echoed": "announced addresses that the peer echoed",
    MptcpAddAddrIn = "mptcp_add_addr_in": "addresses announced by peers",
    MptcpAddAddrBadHmac = "mptcp_add_addr_bad_hmac": "announcements with a wrong HMAC",
    MptcpRemoveAddrOut = "mptcp_remove_addr_out": "addresses withdrawn because their port lost its link",
    MptcpRemoveAddrIn = "mptcp_remove_addr_in": "addresses withdrawn by peers",
    MptcpPrioIn = "mptcp_prio_in": "MP_PRIO options received",
    MptcpPrioOut = "mptcp_prio_out": "subflows that a peer was asked to use as backup, or no longer as such",
    MptcpFastcloseIn = "mptcp_fastclose_in": "MP_FASTCLOSE received",
    MptcpFastcloseOut = "mptcp_fastclose_out": "MP_FASTCLOSE sent",
    MptcpFailIn = "mptcp_fail_in": "MP_FAIL received",
    MptcpFailOut = "mptcp_fail_out": "MP_FAIL sent",
    MptcpTcprstIn = "mptcp_tcprst_in": "resets with a reason received",
    MptcpNoSubflowTimeouts = "mptcp_no_subflow_timeouts": "connections that ended after their time without any subflow",

    LinksLost = "links_lost": "times that a port lost its link",
    LinksBack = "links_back": "times that a port got its link back",
    EventsUnread = "events_unread": "events that gave way to newer ones because nobody followed `mimbox events`, or not fast enough",

    ConversionsOpened = "conversions_opened": "conversions established",
    ConversionsClosed = "conversions_closed": "conversions that ended by FIN on both sides",
    ConversionsReset = "conversions_reset": "conversions that ended by a reset",
    OpeningsStarted = "openings_started": "client SYNs carried to a server",
    OpeningsRefused = "openings_refused": "openings that the server refused",
    OpeningsUnreachable = "openings_unreachable": "openings answered with an ICMP error",
    OpeningsTimedOut = "openings_timed_out": "openings whose server or client did not answer",
    OpeningsEvicted = "openings_evicted": "half-open records evicted because their slots ran out",
    OpeningsPerSourceLimit = "openings_per_source_limit": "SYNs refused because their source holds too many half-open slots",
    SynForwardedOverload = "syn_forwarded_overload": "transparent SYNs forwarded unconverted because slots ran out",
    ConversionsLimit = "conversions_limit": "SYNs refused because the limit of conversions is reached",
    OpeningsDraining = "openings_draining": "SYNs refused because the box is about to stop",
    DstOptMissing = "dst_opt_missing": "SYNs to an explicit port without a destination option",
    DstOptMalformed = "dst_opt_malformed": "SYNs whose destination option is malformed",
    DstOptLoop = "dst_opt_loop": "SYNs whose destination is the box itself",
    DstOptUnroutable = "dst_opt_unroutable": "SYNs whose destination has no route",
    DstOptForbidden = "dst_opt_forbidden": "SYNs whose destination policy forbids",
    SourcePortsExhausted = "source_ports_exhausted": "SYNs refused because no source port towards the server was free",
    TimeWaitEvicted = "time_wait_evicted": "TIME-WAIT records evicted because their table is full",
    ClientsVanished = "clients_vanished": "openings whose client never sent the third ACK",
}

/// How many counters there are.
pub const COUNT: usize = Counter::ALL.len();

/// One shard's counters: plain numbers, published as a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters([u64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Counters {
    /// Adds one.
    #[inline]
    pub fn inc(&mut self, counter: Counter) {
        self.add(counter, 1);
    }
    /// Adds `n`.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        let slot = &mut self.0[counter as usize];
        *slot = slot.wrapping_add(n);
    }
    /// The counter's value.
    #[inline]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
    /// All counters with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter, self.get(counter)))
    }
}

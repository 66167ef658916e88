// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// Steers what is the box's own to its AF_XDP socket; everything else goes on to the kernel.
//
// The box's own is: every IP packet to one of its addresses, every ARP packet and neighbour discovery message about one
// of them, and, on a port with ALL_IP (transparent mode), every unicast IP packet that is addressed to the port's
// Ethernet address, because there the box is the router. On a port with EVERYTHING it is a piece of the wire.

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define NEXT_HEADER_ICMPV6 58
#define NEIGHBOUR_SOLICITATION 135

/* Flags of struct port; af_xdp/steer.rs has the same. */
#define ALL_IP 1u
#define EVERYTHING 2u

struct port {
	__u32 flags;
	__u8 mac[6];
	__u8 unused[2];
};

struct address {
	__u8 bytes[16];
};

struct ethernet {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
} __attribute__((packed));

struct vlan {
	__be16 tag;
	__be16 type;
} __attribute__((packed));

struct arp {
	__u8 fixed[8];
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

struct ipv4 {
	__u8 fixed[16];
	__u8 dst[4];
} __attribute__((packed));

struct ipv6 {
	__u8 fixed[6];
	__u8 next_header;
	__u8 hop_limit;
	__u8 src[16];
	__u8 dst[16];
} __attribute__((packed));

struct solicitation {
	__u8 type;
	__u8 code;
	__u8 rest[6];
	__u8 target[16];
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} addresses_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct address);
	__type(value, __u8);
} addresses_v6 SEC(".maps");

static __always_inline int owns_v4(const __u8 bytes[4])
{
	__u32 key;

	__builtin_memcpy(&key, bytes, sizeof(key));
	return bpf_map_lookup_elem(&addresses_v4, &key) != 0;
}

static __always_inline int owns_v6(const __u8 bytes[16])
{
	struct address key;

	__builtin_memcpy(&key, bytes, sizeof(key));
	return bpf_map_lookup_elem(&addresses_v6, &key) != 0;
}

static __always_inline int same_mac(const __u8 a[6], const __u8 b[6])
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

/* Loopback, multicast, reserved and broadcast are the kernel's affair, and so is what is meant for this link only. */
static __always_inline int routable_v4(const __u8 dst[4])
{
	return dst[0] != 0 && dst[0] != 127 && dst[0] < 224 && !(dst[0] == 169 && dst[1] == 254);
}

static __always_inline int routable_v6(const __u8 dst[16])
{
	return dst[0] != 0xff && !(dst[0] == 0xfe && (dst[1] & 0xc0) == 0x80);
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = data;
	void *next = eth + 1;
	__u32 zero = 0;
	int tagged = 0, group, ours = 0;
	struct port *port;
	__be16 type;

	if (next > end)
		return XDP_PASS;
	port = bpf_map_lookup_elem(&ports, &zero);
	if (!port)
		return XDP_PASS;
	if (port->flags & EVERYTHING)
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	/* A switch that floods shows the port what is meant for others. */
	group = eth->dst[0] & 1;
	if (!group && !same_mac(eth->dst, port->mac))
		return XDP_PASS;

	type = eth->type;
	if (type == bpf_htons(ETHERTYPE_VLAN)) {
		struct vlan *vlan = next;

		next = vlan + 1;
		if (next > end)
			return XDP_PASS;
		type = vlan->type;
		/* A tag of priority only (VLAN 0) is none. */
		tagged = (vlan->tag & bpf_htons(0x0fff)) != 0;
	}

	if (type == bpf_htons(ETHERTYPE_IPV4)) {
		struct ipv4 *ip = next;

		if ((void *)(ip + 1) > end || group)
			return XDP_PASS;
		ours = owns_v4(ip->dst) || ((port->flags & ALL_IP) && !tagged && routable_v4(ip->dst));
	} else if (type == bpf_htons(ETHERTYPE_IPV6)) {
		struct ipv6 *ip = next;
		struct solicitation *ask = (void *)(ip + 1);

		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		if (!group)
			ours = owns_v6(ip->dst) || ((port->flags & ALL_IP) && !tagged && routable_v6(ip->dst));
		/* Sent to a group, or to the router that the kernel also is: the target says whom it asks for. */
		if (!ours && ip->next_header == NEXT_HEADER_ICMPV6 && (void *)(ask + 1) <= end &&
		    ask->type == NEIGHBOUR_SOLICITATION)
			ours = owns_v6(ask->target);
	} else if (type == bpf_htons(ETHERTYPE_ARP)) {
		struct arp *arp = next;

		if ((void *)(arp + 1) > end)
			return XDP_PASS;
		/* The target of a question is whom it asks for, that of an answer is who asked. */
		ours = owns_v4(arp->target);
	}
	if (!ours)
		return XDP_PASS;
	/* Without a socket on this queue the kernel gets it. */
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "MIT";

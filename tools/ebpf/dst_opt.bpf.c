// Dst Opt for a lab client: a connection to a distant server goes to the converter instead, and its SYN names the
// server in an experimental TCP option (kind 253, RFC 6994).
//
// connect4/connect6 rewrite the destination and remember the original one by socket; the sockops program writes the
// option into the SYN of exactly those sockets. An MPTCP socket's additional subflows connect to the converter's own
// addresses, which stand in the tables of direct destinations, so they are neither redirected nor marked.
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define OPTION_KIND 253
#define TCP_FLAG_SYN 0x02
#define DIRECT_LIMIT 64
#define CONVERTER_IPV4 1
#define CONVERTER_IPV6 2
#define IPV4_MAPPED bpf_htonl(0x0000ffff)

// Where connections go instead. Written once by the loader; the layout is `Settings::encode` in lab/dst_opt.rs.
struct settings {
	__u32 ipv4;      // network order
	__u32 ipv6[4];   // network order
	__u16 exid;      // host order
	__u16 port;      // host order; 0 keeps the port that the application asked for
	__u32 families;  // CONVERTER_IPV4 | CONVERTER_IPV6
};

// What the application asked for.
struct original {
	__u32 address[4]; // network order; IPv4 in the first word
	__u16 port;       // network order; 0 when the SYN's own destination port is right
	__u8 address_len; // 4 or 16
	__u8 unused;
};

struct direct4_key {
	__u32 prefix_len;
	__u32 address;
};

struct direct6_key {
	__u32 prefix_len;
	__u32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} SETTINGS SEC(".maps");

// Destinations that are reached directly: the converter itself and the client's own networks.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, DIRECT_LIMIT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct direct4_key);
	__type(value, __u32);
} DIRECT4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, DIRECT_LIMIT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct direct6_key);
	__type(value, __u32);
} DIRECT6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct original);
} ORIGINALS SEC(".maps");

static __always_inline const struct settings *settings_for(__u32 family)
{
	__u32 zero = 0;
	const struct settings *settings = bpf_map_lookup_elem(&SETTINGS, &zero);

	return settings && (settings->families & family) ? settings : NULL;
}

static __always_inline bool direct4(__u32 address)
{
	struct direct4_key key = { .prefix_len = 32, .address = address };

	return bpf_map_lookup_elem(&DIRECT4, &key) != NULL;
}

// Remembers the destination that the application gave and takes the converter's port, when it has one of its own.
static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct settings *settings,
				     const struct original *wanted)
{
	struct bpf_sock *sk = ctx->sk;
	struct original *kept;

	if (!sk)
		return false;
	kept = bpf_sk_storage_get(&ORIGINALS, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return false;
	*kept = *wanted;
	if (settings->port && bpf_htons(settings->port) != (__u16)ctx->user_port) {
		kept->port = (__u16)ctx->user_port;
		ctx->user_port = bpf_htons(settings->port);
	}
	return true;
}

// A socket that connects a second time, to a direct destination, must not carry the first one's option.
static __always_inline void forget(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk)
		bpf_sk_storage_delete(&ORIGINALS, sk);
}

SEC("cgroup/connect4")
int dst_opt_connect4(struct bpf_sock_addr *ctx)
{
	const struct settings *settings = settings_for(CONVERTER_IPV4);
	struct original wanted = { .address_len = 4 };

	if (!settings || ctx->type != 1 /* SOCK_STREAM */)
		return 1;
	wanted.address[0] = ctx->user_ip4;
	if (direct4(wanted.address[0])) {
		forget(ctx);
		return 1;
	}
	if (remember(ctx, settings, &wanted))
		ctx->user_ip4 = settings->ipv4;
	return 1;
}

SEC("cgroup/connect6")
int dst_opt_connect6(struct bpf_sock_addr *ctx)
{
	struct direct6_key key = { .prefix_len = 128 };
	struct original wanted = {};
	const struct settings *settings;

	if (ctx->type != 1 /* SOCK_STREAM */)
		return 1;
	key.address[0] = ctx->user_ip6[0];
	key.address[1] = ctx->user_ip6[1];
	key.address[2] = ctx->user_ip6[2];
	key.address[3] = ctx->user_ip6[3];

	// An IPv4 destination on an IPv6 socket.
	if (!key.address[0] && !key.address[1] && key.address[2] == IPV4_MAPPED) {
		settings = settings_for(CONVERTER_IPV4);
		if (!settings)
			return 1;
		if (direct4(key.address[3])) {
			forget(ctx);
			return 1;
		}
		wanted.address_len = 4;
		wanted.address[0] = key.address[3];
		if (remember(ctx, settings, &wanted))
			ctx->user_ip6[3] = settings->ipv4;
		return 1;
	}

	settings = settings_for(CONVERTER_IPV6);
	if (!settings)
		return 1;
	if (bpf_map_lookup_elem(&DIRECT6, &key)) {
		forget(ctx);
		return 1;
	}
	wanted.address_len = 16;
	wanted.address[0] = key.address[0];
	wanted.address[1] = key.address[1];
	wanted.address[2] = key.address[2];
	wanted.address[3] = key.address[3];
	if (remember(ctx, settings, &wanted)) {
		ctx->user_ip6[0] = settings->ipv6[0];
		ctx->user_ip6[1] = settings->ipv6[1];
		ctx->user_ip6[2] = settings->ipv6[2];
		ctx->user_ip6[3] = settings->ipv6[3];
	}
	return 1;
}

// The option: kind, length, ExID, address, and the port when the SYN goes to another one.
struct option_ipv4 {
	__u8 kind;
	__u8 len;
	__u16 exid;
	__u32 address;
	__u16 port;
} __attribute__((packed));

struct option_ipv6 {
	__u8 kind;
	__u8 len;
	__u16 exid;
	__u32 address[4];
	__u16 port;
} __attribute__((packed));

static __always_inline __u32 option_len(const struct original *original)
{
	return 4 + original->address_len + (original->port ? 2 : 0);
}

static __always_inline void write_option(struct bpf_sock_ops *skops, const struct original *original, __u16 exid)
{
	if (original->address_len == 4) {
		struct option_ipv4 option = {
			.kind = OPTION_KIND,
			.len = option_len(original),
			.exid = bpf_htons(exid),
			.address = original->address[0],
			.port = original->port,
		};

		if (original->port)
			bpf_store_hdr_opt(skops, &option, 10, 0);
		else
			bpf_store_hdr_opt(skops, &option, 8, 0);
		return;
	}

	struct option_ipv6 option = {
		.kind = OPTION_KIND,
		.len = option_len(original),
		.exid = bpf_htons(exid),
		.port = original->port,
	};

	option.address[0] = original->address[0];
	option.address[1] = original->address[1];
	option.address[2] = original->address[2];
	option.address[3] = original->address[3];
	if (original->port)
		bpf_store_hdr_opt(skops, &option, 22, 0);
	else
		bpf_store_hdr_opt(skops, &option, 20, 0);
}

SEC("sockops")
int dst_opt_sockops(struct bpf_sock_ops *skops)
{
	struct bpf_sock *sk = skops->sk;
	const struct settings *settings;
	struct original *original;
	int flags = skops->bpf_sock_ops_cb_flags;

	if (!sk)
		return 1;
	switch (skops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if (bpf_sk_storage_get(&ORIGINALS, sk, NULL, 0))
			bpf_sock_ops_cb_flags_set(skops, flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		// The option stands in the SYN only: later segments need not ask this program.
		if (flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG) {
			bpf_sock_ops_cb_flags_set(skops, flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
			bpf_sk_storage_delete(&ORIGINALS, sk);
		}
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (!(skops->skb_tcp_flags & TCP_FLAG_SYN))
			break;
		original = bpf_sk_storage_get(&ORIGINALS, sk, NULL, 0);
		if (original)
			bpf_reserve_hdr_opt(skops, option_len(original), 0);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		if (!(skops->skb_tcp_flags & TCP_FLAG_SYN))
			break;
		settings = settings_for(CONVERTER_IPV4 | CONVERTER_IPV6);
		original = bpf_sk_storage_get(&ORIGINALS, sk, NULL, 0);
		if (original && settings)
			write_option(skops, original, settings->exid);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";

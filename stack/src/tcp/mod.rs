//! TCP (RFC 9293) for a converter: segments in, segments out, payload never copied.

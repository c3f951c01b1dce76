//! Key and row codecs.

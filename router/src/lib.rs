//! The router: events in, planned deliveries out

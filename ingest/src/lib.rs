//! Ingest: events by HTTP onto the bus

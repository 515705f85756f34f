//! The event of a dead letter: its own copy, the stored event, or an excerpt.

use tidings_core::bus::Bus;
use tidings_core::{Delivery, Event};

/// What is known of a dead letter's event.
pub enum StoredEvent {
    /// The whole event.
    Whole(Event),
    /// The stream EVENTS no longer has the event. The delivery carries this excerpt.
    Excerpt(Event),
    /// The stream EVENTS no longer has the event, and the delivery carries nothing of it.
    Unknown,
}

impl StoredEvent {
    /// Finds the event of a delivery. Only a large event is read from the stream EVENTS. If that
    /// fails, the excerpt has to do.
    pub async fn find(bus: &Bus, delivery: Delivery) -> Self {
        if let Some(event) = delivery.event {
            return Self::Whole(event);
        }
        let stored = bus
            .event_at(delivery.event_sequence, &delivery.event_id)
            .await;
        match (stored, delivery.excerpt) {
            (Ok(Some(event)), _) => Self::Whole(event),
            (_, Some(excerpt)) => Self::Excerpt(excerpt),
            (_, None) => Self::Unknown,
        }
    }

    /// The event or its excerpt.
    pub fn known(&self) -> Option<&Event> {
        match self {
            Self::Whole(event) | Self::Excerpt(event) => Some(event),
            Self::Unknown => None,
        }
    }

    /// Whether only the excerpt is known.
    pub fn is_excerpt(&self) -> bool {
        matches!(self, Self::Excerpt(_))
    }
}

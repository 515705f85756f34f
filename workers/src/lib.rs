//! Workers: deliveries to every provider type

//! Alert and Provider rules: read, checked, compiled

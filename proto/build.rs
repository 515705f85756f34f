//! Compiles `tidings/v1/*.proto` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "tidings/v1/event.proto",
        "tidings/v1/delivery.proto",
        "tidings/v1/lease.proto",
        "tidings/v1/record.proto",
        "tidings/v1/limits.proto",
        "tidings/v1/counts.proto",
        "tidings/v1/rules.proto",
        "tidings/v1/consumer.proto",
        "tidings/v1/cluster.proto",
        "tidings/v1/edge.proto",
        "tidings/v1/shadow.proto",
        "tidings/v1/audit.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    // Maps are sorted, so that equal messages have equal bytes on every replica.
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

// swift-tools-version:5.3
import PackageDescription

let package = Package(
    name: "Action",
    products: [.executable(name: "Action", targets: ["Action"])],
    targets: [.target(name: "Action", path: "Sources")]
)

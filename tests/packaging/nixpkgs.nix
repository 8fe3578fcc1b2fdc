# As much of nixpkgs as the derivation of packaging/nix asks for, so that it can be instantiated without it: every
# package is a derivation of its name, every builder keeps what it was given. It builds nothing.
{ system }:
let
  named =
    name: attributes:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
      }
      // removeAttrs attributes [ "meta" "passthru" ]
    )
    // {
      inherit (attributes) meta passthru;
    };
  package =
    name:
    named name {
      meta = { };
      passthru = { };
    };
  build =
    given:
    let
      attributes = {
        meta = { };
        passthru = { };
      }
      // given attributes;
    in
    named "${attributes.pname}-${attributes.version}" attributes;
  packages =
    names:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = package name;
      }) names
    );
in
packages [
  "bridge-utils" "catatonit" "cni-plugins" "conntrack-tools" "containerd" "ethtool" "ipset" "iproute2" "iptables" "kmod"
  "makeWrapper" "nftables" "runc" "socat" "unzip" "util-linux" "versionCheckHook" "zstd"
]
// {
  lib = {
    importTOML = path: builtins.fromTOML (builtins.readFile path);
    findFirst =
      wanted: otherwise: list:
      let
        found = builtins.filter wanted list;
      in
      if found == [ ] then otherwise else builtins.head found;
    splitString = separator: text: builtins.filter builtins.isString (builtins.split separator text);
    removeSuffix =
      suffix: text: builtins.substring 0 (builtins.stringLength text - builtins.stringLength suffix) text;
    makeBinPath = list: builtins.concatStringsSep ":" (map (each: "${each}/bin") list);
    fileset = {
      unions = list: list;
      toSource = { root, fileset }: map (path: assert builtins.pathExists path; toString path) fileset;
    };
    licenses.asl20 = "asl20";
  };
  stdenvNoCC = {
    hostPlatform.isAarch64 = system == "aarch64-linux";
    mkDerivation = build;
  };
  fetchPypi =
    { pname, version, platform, hash, ... }@given:
    derivation {
      name = "${pname}-${version}-${given.python}-${given.abi}-${platform}.whl";
      inherit system;
      builder = "/bin/sh";
      outputHashMode = "flat";
      outputHashAlgo = null;
      outputHash = hash;
    };
  python3Packages =
    packages [
      "cryptography" "google-re2" "grpclib" "httptools" "msgspec" "pip" "pyyaml" "setuptools" "uvloop" "wsproto"
    ]
    // {
      buildPythonApplication = build;
    };
}

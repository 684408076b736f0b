// What flanneld is built from: its module from the Go module proxy. The SDK of one of its cloud backends is replaced
// by stubs that declare what that backend names; the tests never choose it.
module loden.test/flanneld

go 1.25

require github.com/flannel-io/flannel v0.28.9

replace (
	github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common => ./common
	github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc => ./vpc
)

// Package common is a stub: what the tencent-vpc backend names, and nothing that works.
package common

func BoolPtr(v bool) *bool { return &v }

func StringPtr(v string) *string { return &v }

func StringPtrs(values []string) []*string {
	pointers := make([]*string, len(values))
	for i := range values {
		pointers[i] = &values[i]
	}
	return pointers
}

package word

func Say() string {
	return "imported"
}

module beside

go 1.21
